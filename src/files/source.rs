//! Bytes of this machine: a file, or stdin, as a body and as a checksum.

use std::fmt::Write as _;
use std::io::{Read, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use super::client::Payload;
use super::progress::Progress;
use super::trouble::Trouble;
use crate::exit::Failure;

/// Read and sent at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// How many bytes of a body are on their way. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A piece of a file.
pub async fn piece(file: &Path, range: Range<u64>, sent: Sent, progress: Progress) -> Result<Payload, Trouble> {
    let mut file = tokio::fs::File::open(file).await?;
    file.set_max_buf_size(PIECE_BYTES);
    file.seek(SeekFrom::Start(range.start)).await?;
    Ok(body(file.take(range.end - range.start), sent, progress))
}

/// All that `source` has to give.
pub fn body(source: impl AsyncRead + Send + Sync + Unpin + 'static, sent: Sent, progress: Progress) -> Payload {
    let pieces = futures_util::stream::try_unfold(source, move |mut source| {
        let (sent, progress) = (sent.clone(), progress.clone());
        async move {
            let mut piece = vec![0; PIECE_BYTES];
            let read = source.read(&mut piece).await?;
            piece.truncate(read);
            sent.0.fetch_add(read as u64, Ordering::Relaxed);
            progress.add(read as u64);
            Ok((read > 0).then(|| (Frame::data(Bytes::from(piece)), source)))
        }
    });
    BodyExt::boxed(StreamBody::new(Box::pin(pieces)))
}

/// The SHA-256 of a file, as 64 digits, computed beside whatever else goes on.
pub async fn checksum(file: &Path) -> Result<String, Trouble> {
    let file = file.to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let mut hash = Hash::default();
        let mut source = std::fs::File::open(&file)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece)? {
                0 => return Ok::<_, std::io::Error>(hash.digits()),
                read => hash.add(&piece[..read]),
            }
        }
    });
    Ok(done.await.map_err(Failure::from)??)
}

/// A SHA-256 in the making.
#[derive(Clone, Debug, Default)]
pub struct Hash(Sha256);

impl Hash {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn bytes(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    pub fn digits(self) -> String {
        self.bytes().iter().fold(String::with_capacity(64), |mut digits, byte| {
            // Nothing fails that is written to text.
            let _ = write!(digits, "{byte:02x}");
            digits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_a_piece_of_the_file_and_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let bytes: Vec<u8> = (0..600_000_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(&file, &bytes).expect("a file");
        let sent = Sent::default();
        let body = piece(&file, 100..590_000, sent.clone(), Progress::new(None)).await.expect("a body");
        assert!(body.collect().await.expect("bytes").to_bytes() == bytes[100..590_000]);
        assert_eq!(sent.bytes(), 589_900);
        let mut hash = Hash::default();
        hash.add(&bytes);
        assert_eq!(checksum(&file).await.expect("a checksum"), hash.digits());
    }

    #[test]
    fn a_checksum_is_written_as_digits() {
        let digits = Hash::default().digits();
        assert_eq!(digits, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
