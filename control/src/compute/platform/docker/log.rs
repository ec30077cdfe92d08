//! What a container's main process wrote.

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::compute::platform::LogQuery;

/// Lines that wait for their reader.
const LINES: usize = 256;
/// Longest line, in bytes; what is longer comes in several.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// The lines of the log of `container`.
pub(super) fn open(docker: &Docker, container: &str, query: LogQuery) -> mpsc::Receiver<Bytes> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(query.follow);
    let options = options.tail(&query.tail.to_string()).build();
    let mut pieces = Box::pin(docker.logs(container, Some(options)));
    let (lines, reader) = mpsc::channel(LINES);
    tokio::spawn(async move {
        while let Some(Ok(piece)) = pieces.next().await {
            let (LogOutput::StdOut { message }
            | LogOutput::StdErr { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message }) = piece;
            let text = message.strip_suffix(b"\n").unwrap_or(&message);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            for line in text.chunks(MAX_LINE_BYTES) {
                if lines.send(message.slice_ref(line)).await.is_err() {
                    return;
                }
            }
            if text.is_empty() && lines.send(Bytes::new()).await.is_err() {
                return;
            }
        }
    });
    reader
}
