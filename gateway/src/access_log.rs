//! Where the records of requests go: the access log, written by a thread of its own so that a slow
//! disk or pipe never holds up a request, and whoever listens with `edd tap`.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::broadcast;

use crate::clock;
use crate::exchange::Exchange;
use crate::metrics::Metrics;

/// Lines that wait for the writer; further ones are dropped and counted.
const MAX_QUEUED_LINES: usize = 16 * 1024;
/// Lines that a slow `edd tap` may fall behind.
const MAX_TAP_LINES: usize = 1024;
/// Bytes written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Cheap handle on both sinks.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    tap: broadcast::Sender<Arc<str>>,
    metrics: Arc<Metrics>,
}

/// Joins the writer, so that no line is lost at exit.
#[derive(Debug)]
pub struct Writer(Option<JoinHandle<()>>);

impl Writer {
    /// Waits until every line is written. Drop every [`AccessLog`] first.
    pub fn join(self) {
        if let Some(thread) = self.0 {
            // A panic in the writer has been reported on stderr already.
            let _ = thread.join();
        }
    }
}

impl AccessLog {
    /// Starts the writer; without `out` there is no log, but `edd tap` works.
    pub fn start(out: Option<Box<dyn Write + Send>>, metrics: Arc<Metrics>) -> std::io::Result<(Self, Writer)> {
        let tap = broadcast::channel(MAX_TAP_LINES).0;
        let Some(out) = out else {
            return Ok((Self { lines: None, tap, metrics }, Writer(None)));
        };
        let (lines, queue) = sync_channel(MAX_QUEUED_LINES);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(queue, out))?;
        Ok((Self { lines: Some(lines), tap, metrics }, Writer(Some(thread))))
    }

    /// Records a finished request.
    pub fn record(&self, exchange: &Exchange) {
        let tapped = self.tap.receiver_count() > 0;
        if self.lines.is_none() && !tapped {
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
        if let Some(lines) = &self.lines {
            line.push(b'\n');
            if let Err(TrySendError::Full(_)) = lines.try_send(line) {
                self.metrics.access_log_dropped.inc();
            }
        }
    }

    /// Follows the records as JSON lines.
    pub fn tap(&self) -> broadcast::Receiver<Arc<str>> {
        self.tap.subscribe()
    }
}

fn write(queue: Receiver<Vec<u8>>, mut out: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(BATCH_BYTES);
    while let Ok(line) = queue.recv() {
        batch.extend_from_slice(&line);
        while batch.len() < BATCH_BYTES {
            match queue.try_recv() {
                Ok(line) => batch.extend_from_slice(&line),
                Err(_) => break,
            }
        }
        if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
            tracing::error!(%error, "the access log could not be written");
        }
        batch.clear();
    }
}
