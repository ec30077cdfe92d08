//! Where the records of requests go: the access log, written by a thread of its own so that a slow
//! disk or pipe never holds up a request, and whoever listens with `edd tap`.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::clock;
use crate::exchange::Exchange;
use crate::metrics::Metrics;

/// Lines that wait for the writer; further ones are dropped and counted.
const MAX_QUEUED_LINES: usize = 64 * 1024;
/// Lines that a slow `edd tap` may fall behind.
const MAX_TAP_LINES: usize = 1024;
/// Pause of the writer between batches. While it sleeps nobody has to wake it, which would cost a
/// request more than making its line.
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Bytes written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Cheap handle on both sinks.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Entry>>,
    tap: broadcast::Sender<Arc<str>>,
    metrics: Arc<Metrics>,
}

/// What the writer is sent.
enum Entry {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Starts the writer; without `out` there is no log, but `edd tap` works.
    pub fn start(out: Option<Box<dyn Write + Send>>, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let tap = broadcast::channel(MAX_TAP_LINES).0;
        let Some(out) = out else {
            return Ok(Self { queue: None, tap, metrics });
        };
        let (queue, entries) = sync_channel(MAX_QUEUED_LINES);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&entries, out))?;
        Ok(Self { queue: Some(queue), tap, metrics })
    }

    /// Records a finished request.
    pub fn record(&self, exchange: &Exchange) {
        let tapped = self.tap.receiver_count() > 0;
        if self.queue.is_none() && !tapped {
            return;
        }
        let mut line = Vec::with_capacity(512);
        let now = clock::rfc3339_now();
        if let Err(error) = serde_json::to_writer(&mut line, &exchange.line(&now)) {
            tracing::error!(%error, "an access line could not be written");
            return;
        }
        if tapped && let Ok(text) = std::str::from_utf8(&line) {
            // An error means that the last listener just left.
            let _ = self.tap.send(text.into());
        }
        if let Some(queue) = &self.queue {
            line.push(b'\n');
            if let Err(TrySendError::Full(_)) = queue.try_send(Entry::Line(line)) {
                self.metrics.access_log_dropped.inc();
            }
        }
    }

    /// Waits until every line so far is written, or `timeout` is over. Blocks.
    pub fn flush(&self, timeout: Duration) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = sync_channel(1);
        if queue.send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(timeout);
        }
    }

    /// Follows the records as JSON lines.
    pub fn tap(&self) -> broadcast::Receiver<Arc<str>> {
        self.tap.subscribe()
    }
}

#[allow(clippy::disallowed_methods, reason = "a thread of its own, which no task waits for")]
fn write(entries: &Receiver<Entry>, mut out: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(first) = entries.recv() {
        let mut flushed = None;
        let mut next = Some(first);
        while let Some(entry) = next {
            match entry {
                Entry::Line(line) => batch.extend_from_slice(&line),
                Entry::Flush(done) => flushed = Some(done),
            }
            let full = batch.len() >= BATCH_BYTES || flushed.is_some();
            next = if full { None } else { entries.try_recv().ok() };
        }
        if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
            tracing::error!(%error, "the access log could not be written");
        }
        batch.clear();
        match flushed {
            // Whoever asked may have stopped waiting.
            Some(done) => drop(done.send(())),
            None => std::thread::sleep(BATCH_PAUSE),
        }
    }
}
