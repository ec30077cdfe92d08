//! A file on its way out.

use std::ops::Range;

use bytes::Bytes;
use edd_events::clock::{Micros, micros};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};

use super::{NO_FILE, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Entry, File, FilePath, Namespace, NamespaceName, Visitor};
use crate::sfs::storage::{BlobId, StorageError};
use crate::sfs::store::blobs::{self, Piece};
use crate::sfs::store::files;

/// A file as it was when it was opened. What is read of it stays so to the end, whatever becomes of its path.
#[derive(Clone, Debug)]
pub struct Opened {
    service: Service,
    pub namespace: Namespace,
    pub entry: Entry,
    pub file: File,
    pieces: Vec<Piece>,
}

impl Service {
    /// Opens a file that the visitor may read.
    ///
    /// # Errors
    /// There is none that they see.
    pub async fn open(
        &self,
        visitor: &Visitor,
        namespace: &NamespaceName,
        path: &FilePath,
    ) -> Result<Opened, SfsError> {
        self.open_in(self.namespace(visitor, namespace).await?, path).await
    }

    /// Opens a file for whoever was found to be allowed to read it.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::sfs) async fn open_in(&self, namespace: Namespace, path: &FilePath) -> Result<Opened, SfsError> {
        let found = files::with_pieces(self.database().reader(), namespace.number, path).await?;
        let (entry, pieces) = found.ok_or(NO_FILE)?;
        let file = entry.file.clone().ok_or_else(|| SfsError::conflict(format!("{path} is a folder")))?;
        Ok(Opened { service: self.clone(), namespace, entry, file, pieces })
    }
}

/// What a reader has in hand.
struct Reading {
    service: Service,
    pieces: Vec<Piece>,
    /// Which of them, and what of it, comes next.
    next: std::vec::IntoIter<(BlobId, Range<u64>)>,
    bytes: Option<BoxStream<'static, Result<Bytes, StorageError>>>,
    /// When to say that they are still being read.
    extend_at: Micros,
}

impl Opened {
    /// The bytes in `range`, as far as there are so many, a piece at a time.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, SfsError>> + Send + use<> {
        let reading = Reading {
            service: self.service.clone(),
            pieces: self.pieces.clone(),
            next: within(&self.pieces, range).into_iter(),
            bytes: None,
            extend_at: self.service.reader_extends_at(),
        };
        stream::try_unfold(reading, |mut reading| async {
            let next = reading.next().await?;
            Ok(next.map(|bytes| (bytes, reading)))
        })
    }
}

impl Service {
    fn reader_extends_at(&self) -> Micros {
        self.now().saturating_add(micros(self.config().leases.read / 3))
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, SfsError> {
        loop {
            self.keep().await?;
            if let Some(bytes) = &mut self.bytes
                && let Some(next) = bytes.next().await
            {
                return Ok(Some(next?));
            }
            let Some((id, range)) = self.next.next() else { return Ok(None) };
            self.bytes = Some(self.service.store().read(id, range).boxed());
        }
    }

    /// Says that its blobs are being read, in case that they have become garbage meanwhile.
    async fn keep(&mut self) -> Result<(), SfsError> {
        if self.service.now() < self.extend_at {
            return Ok(());
        }
        let until = self.service.read_lease();
        let ids: Vec<BlobId> = self.pieces.iter().map(|piece| piece.id).collect();
        for ids in ids.chunks(500) {
            blobs::extend(self.service.database().writer(), ids, until).await?;
        }
        self.extend_at = self.service.reader_extends_at();
        Ok(())
    }
}

/// Which bytes of which pieces make up `range` of the whole.
fn within(pieces: &[Piece], range: Range<u64>) -> Vec<(BlobId, Range<u64>)> {
    let mut begin = 0;
    let mut found = Vec::new();
    for piece in pieces {
        let end = begin + piece.size;
        let (from, to) = (range.start.max(begin), range.end.min(end));
        if from < to {
            found.push((piece.id, from - begin..to - begin));
        }
        begin = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_made_of_parts_of_pieces() {
        let id = |digit: char| digit.to_string().repeat(32).parse::<BlobId>().expect("an id");
        let pieces = [('a', 4), ('b', 0), ('c', 6)].map(|(digit, size)| Piece { id: id(digit), size });
        for (range, parts) in [
            (0..10, vec![('a', 0..4), ('c', 0..6)]),
            (3..5, vec![('a', 3..4), ('c', 0..1)]),
            (4..10, vec![('c', 0..6)]),
            (0..4, vec![('a', 0..4)]),
            (9..99, vec![('c', 5..6)]),
            (10..10, vec![]),
            (5..5, vec![]),
        ] {
            let parts: Vec<_> = parts.into_iter().map(|(digit, range)| (id(digit), range)).collect();
            assert_eq!(within(&pieces, range.clone()), parts, "{range:?}");
        }
        assert_eq!(within(&[], 0..1), []);
    }
}
