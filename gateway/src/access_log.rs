//! Where the records of requests, and of sessions over SSH, go: the access log, written by a thread of its own so that a slow
//! disk or pipe never holds up a request, and whoever listens with `edd tap`.
//!
//! Lines are made in buffers that the threads do not share, and the writer swaps each for an empty
//! one: no line is allocated, handed over or waited for by itself.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::clock;
use crate::exchange::Exchange;
use crate::metrics::Metrics;

/// Bytes of lines that wait for the writer, per buffer; further lines are dropped and counted.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Room that a buffer keeps once its lines are written.
const KEPT_BYTES: usize = 256 * 1024;
/// Buffers; threads beyond these share.
const BUFFERS: usize = 16;
/// Lines that a slow `edd tap` may fall behind.
const MAX_TAP_LINES: usize = 1024;
/// Pause of the writer between batches. While it sleeps nobody has to wake it, which would cost a
/// request more than making its line.
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// Cheap handle on both sinks.
#[derive(Clone, Debug)]
pub struct AccessLog {
    writer: Option<Arc<Writer>>,
    tap: broadcast::Sender<Arc<str>>,
    metrics: Arc<Metrics>,
}

/// The writer, told to end when nobody can write any more.
#[derive(Debug)]
struct Writer {
    lines: Arc<Lines>,
    thread: Thread,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Lines on their way to the writer.
#[derive(Debug, Default)]
struct Lines {
    buffers: [Mutex<Vec<u8>>; BUFFERS],
    /// The writer has nothing to do and waits to be told of the next line.
    idle: AtomicBool,
    closed: AtomicBool,
    passes: Mutex<Passes>,
    passed: Condvar,
}

/// How often the writer has gone through all buffers.
#[derive(Debug, Default)]
struct Passes {
    begun: u64,
    ended: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buffer of the current thread.
fn own_buffer() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static INDEX: Cell<Option<usize>> = const { Cell::new(None) });
    INDEX.with(|index| {
        index.get().unwrap_or_else(|| {
            let next = THREADS.fetch_add(1, Ordering::Relaxed) % BUFFERS;
            index.set(Some(next));
            next
        })
    })
}

impl AccessLog {
    /// Starts the writer; without `out` there is no log, but `edd tap` works.
    pub fn start(out: Option<Box<dyn Write + Send>>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let tap = broadcast::channel(MAX_TAP_LINES).0;
        let Some(out) = out else {
            return Ok(Self { writer: None, tap, metrics });
        };
        let lines = Arc::new(Lines::default());
        let taken = Arc::clone(&lines);
        let spawned = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || taken.write(out))?;
        let writer = Writer { lines, thread: spawned.thread().clone() };
        Ok(Self { writer: Some(Arc::new(writer)), tap, metrics })
    }

    /// Records a finished request.
    pub fn record(&self, exchange: &Exchange) {
        let tapped = self.tap.receiver_count() > 0;
        if self.writer.is_none() && !tapped {
            return;
        }
        let now = clock::rfc3339_now();
        let line = exchange.line(&now);
        if tapped && let Ok(text) = serde_json::to_string(&line) {
            // An error means that the last listener just left.
            let _ = self.tap.send(text.into());
        }
        self.write(&line);
    }

    /// Writes a line that is no request's, and which `edd tap` does not show.
    pub fn write(&self, line: &impl Serialize) {
        let Some(writer) = &self.writer else { return };
        {
            let mut buffer = lock(&writer.lines.buffers[own_buffer()]);
            let before = buffer.len();
            if before >= MAX_WAITING_BYTES {
                self.metrics.access_log_dropped.inc();
                return;
            }
            match serde_json::to_writer(&mut *buffer, line) {
                Ok(()) => buffer.push(b'\n'),
                Err(error) => {
                    buffer.truncate(before);
                    tracing::error!(%error, "an access line could not be written");
                }
            }
        }
        let idle = &writer.lines.idle;
        if idle.load(Ordering::Acquire) && idle.swap(false, Ordering::AcqRel) {
            writer.thread.unpark();
        }
    }

    /// Waits until every line so far is written, or `timeout` is over. Blocks.
    pub fn flush(&self, timeout: Duration) {
        let Some(writer) = &self.writer else { return };
        let passes = lock(&writer.lines.passes);
        // A pass that has begun may have gone by some buffer already.
        let enough = passes.begun + 1;
        writer.thread.unpark();
        // In time or not: whoever asked goes on.
        let _ = writer.lines.passed.wait_timeout_while(passes, timeout, |passes| passes.ended < enough);
    }

    /// Follows the records as JSON lines.
    pub fn tap(&self) -> broadcast::Receiver<Arc<str>> {
        self.tap.subscribe()
    }
}

impl Lines {
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, which no task waits for")]
    fn write(&self, mut out: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        loop {
            let began = Instant::now();
            lock(&self.passes).begun += 1;
            let mut wrote = false;
            for buffer in &self.buffers {
                std::mem::swap(&mut *lock(buffer), &mut batch);
                if batch.is_empty() {
                    continue;
                }
                wrote = true;
                if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
                    tracing::error!(%error, "the access log could not be written");
                }
                batch.clear();
                batch.shrink_to(KEPT_BYTES);
            }
            {
                let mut passes = lock(&self.passes);
                passes.ended = passes.begun;
            }
            self.passed.notify_all();
            if wrote {
                std::thread::park_timeout(BATCH_PAUSE.saturating_sub(began.elapsed()));
                continue;
            }
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            self.idle.store(true, Ordering::Release);
            // A line that came before the flag was up has woken nobody. The buffer's lock orders the two.
            if self.buffers.iter().all(|buffer| lock(buffer).is_empty()) {
                std::thread::park();
            }
            self.idle.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;
    use crate::metrics::Listener;

    /// A sink that takes a batch whenever the test does.
    struct Sink(SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn log(room: usize) -> (AccessLog, Receiver<Vec<u8>>) {
        let (sink, batches) = sync_channel(room);
        let log = AccessLog::start(Some(Box::new(Sink(sink))), Arc::new(Metrics::new().unwrap())).unwrap();
        (log, batches)
    }

    fn exchange() -> Exchange {
        Exchange::new(Listener::Http, IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn lines_of_all_threads_are_written_whole_and_once() {
        let (log, batches) = log(1 << 20);
        let threads = (0..BUFFERS + 3).map(|_| {
            let log = log.clone();
            std::thread::spawn(move || (0..500).for_each(|_| log.record(&exchange())))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        log.flush(Duration::from_secs(20));
        let text: Vec<u8> = batches.try_iter().flatten().collect();
        let text = String::from_utf8(text).unwrap();
        let ids = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["request_id"].as_str().unwrap().to_owned()
        });
        assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), (BUFFERS + 3) * 500);
    }

    #[test]
    fn an_idle_writer_is_woken_by_each_next_line() {
        let (log, batches) = log(0);
        for _ in 0..50 {
            log.record(&exchange());
            assert!(batches.recv_timeout(Duration::from_secs(20)).unwrap().ends_with(b"\n"));
        }
    }

    #[test]
    fn a_stuck_sink_costs_lines_and_not_memory() {
        let (log, batches) = log(0);
        let line = {
            log.record(&exchange());
            batches.recv_timeout(Duration::from_secs(20)).unwrap().len()
        };
        let most = 2 * (MAX_WAITING_BYTES / line + 2);
        (0..2 * most).for_each(|_| log.record(&exchange()));
        assert!(log.metrics.access_log_dropped.get() as usize >= most);
        drop(batches);
    }

    #[test]
    fn the_writer_ends_with_its_last_handle() {
        let (log, batches) = log(1);
        drop(log.clone());
        log.record(&exchange());
        drop(log);
        assert_eq!(batches.iter().count(), 1);
    }
}
