//! What every store does alike. A store's tests call each of these with one that is empty.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sfs::storage::{BlobId, BlobStore, Object, StorageError};

pub(super) const MIB: usize = 1024 * 1024;

/// 2026, in microseconds since 1970.
const TEST_WAS_WRITTEN_AT: i64 = 1_767_225_600_000_000;

pub(super) fn id(number: u64) -> BlobId {
    BlobId::random(&mut StdRng::seed_from_u64(number))
}

/// Bytes in which no two places look alike.
pub(super) fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes.into()
}

/// Writes a blob in pieces of `piece` bytes.
pub(super) async fn write(store: &BlobStore, id: BlobId, bytes: &Bytes, piece: usize) {
    let mut writer = store.create(id).await.expect("a writer");
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        writer.write(rest.split_to(rest.len().min(piece))).await.expect("room");
    }
    assert_eq!(writer.finish().await.expect("a blob"), bytes.len() as u64);
}

pub(super) async fn read(store: &BlobStore, id: BlobId, range: Range<u64>) -> Result<Bytes, StorageError> {
    let mut pieces = pin!(store.read(id, range));
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        assert!(!piece.is_empty() && piece.len() <= 256 * 1024, "a piece of {} bytes", piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

pub(super) async fn list(store: &BlobStore) -> Vec<(BlobId, u64)> {
    let found: Vec<Object> = store.list().try_collect().await.expect("a listing");
    assert!(found.iter().all(|blob| blob.modified_at > TEST_WAS_WRITTEN_AT), "{found:?}");
    let mut all: Vec<_> = found.iter().map(|blob| (blob.id, blob.bytes)).collect();
    all.sort_unstable();
    all
}

/// What is written comes back, whole and in part, however it was cut; and is gone when it is deleted.
pub(super) async fn what_is_written_is_read(store: &BlobStore, sizes: &[(usize, usize)]) {
    for (number, (length, piece)) in (0..).zip(sizes) {
        let (id, bytes) = (id(number), noise(*length));
        write(store, id, &bytes, *piece).await;
        let end = *length as u64;
        let ranges = [0..end, 0..1, end / 3..end / 2, end - 1..end, 0..0, end..end, 262_143.min(end)..300_000.min(end)];
        for range in ranges.into_iter().filter(|range| range.start <= range.end && range.end <= end) {
            let part = bytes.slice(range.start as usize..range.end as usize);
            assert!(read(store, id, range.clone()).await.expect("bytes") == part, "{range:?} of {length} by {piece}");
        }
        for range in [0..end + 1, end..end + 1, 0..end + 1_000_000] {
            let refused = read(store, id, range.clone()).await.expect_err("more than there is");
            assert!(!matches!(refused, StorageError::Missing(_)), "{range:?} of {length}: {refused}");
        }
        assert_eq!(list(store).await, [(id, end)]);
        assert_eq!(store.size(id).await.expect("an answer"), Some(end));
        for _ in 0..2 {
            store.delete(id).await.expect("a deletion");
        }
        let missing = read(store, id, 0..1).await;
        assert!(matches!(missing, Err(StorageError::Missing(missed)) if missed == id), "{missing:?}");
        assert_eq!(list(store).await, []);
        assert_eq!(store.size(id).await.expect("an answer"), None);
    }
}

/// A blob that is not finished is no blob, whichever way it ends.
pub(super) async fn what_is_unfinished_is_nothing(store: &BlobStore, length: usize) {
    let mut writer = store.create(id(1)).await.expect("a writer");
    writer.write(noise(length)).await.expect("room");
    assert!(matches!(read(store, id(1), 0..1).await, Err(StorageError::Missing(_))));
    assert_eq!(list(store).await, []);
    writer.abort().await;
    assert_eq!(list(store).await, []);
    assert_eq!(store.sweep(std::time::Duration::ZERO).await.expect("a sweep"), 0, "nothing is left of it");
}

/// Many at once, and all of them are listed once.
pub(super) async fn all_are_listed(store: &BlobStore, count: u64) {
    for number in 0..count {
        write(store, id(number), &noise(number as usize), MIB).await;
    }
    let mut expected: Vec<_> = (0..count).map(|number| (id(number), number)).collect();
    expected.sort_unstable();
    assert_eq!(list(store).await, expected);
}
