//! Rows of blobs that are made before anybody asks: a row must be there for good before its bytes are, and a commit for
//! each would be half of what a small file costs. What is not used is garbage when its lease is over, like all else.

use edd_events::clock::{Micros, micros};

use super::Service;
use crate::sfs::error::SfsError;
use crate::sfs::storage::BlobId;
use crate::sfs::store::blobs;

/// A blob that may be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leased {
    pub id: BlobId,
    /// When its lease has to be extended: a third of it is over.
    pub extend_at: Micros,
}

/// Those that are ready.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    ready: Vec<BlobId>,
    /// How many were made, all at once.
    made: usize,
    /// They are of no use from here on.
    extend_at: Micros,
}

impl Reserve {
    fn take(&mut self, now: Micros) -> Option<Leased> {
        let id = self.ready.pop().filter(|_| now < self.extend_at)?;
        Some(Leased { id, extend_at: self.extend_at })
    }

    /// How many to make: twice as many as were used before their time was over, or one where few are used.
    fn next(&self, now: Micros, most: usize) -> usize {
        if now < self.extend_at { (self.made * 2).clamp(1, most) } else { 1 }
    }
}

impl Service {
    /// A blob to write.
    ///
    /// # Errors
    /// The database fails.
    pub(super) async fn lease_blob(&self) -> Result<Leased, SfsError> {
        // One makes them, and those who come meanwhile wait for it.
        let mut reserve = self.0.reserve.lock().await;
        let now = self.now();
        if let Some(leased) = reserve.take(now) {
            return Ok(leased);
        }
        let count = reserve.next(now, self.config().blobs_ahead.max(1) as usize);
        let mut ready: Vec<BlobId> = (0..count).map(|_| self.random_blob()).collect();
        let lease = self.config().leases.write;
        blobs::insert(self.database().writer(), &ready, now.saturating_add(micros(lease))).await?;
        let (id, extend_at) = (ready.pop().ok_or(SfsError::Busy)?, now.saturating_add(micros(lease / 3)));
        *reserve = Reserve { ready, made: count, extend_at };
        Ok(Leased { id, extend_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_made_as_are_used() {
        let reserve = Reserve { ready: Vec::new(), made: 0, extend_at: 0 };
        assert_eq!(reserve.next(0, 64), 1, "the first");
        for (made, next) in [(1, 2), (16, 32), (40, 64), (64, 64)] {
            let reserve = Reserve { ready: Vec::new(), made, extend_at: 100 };
            assert_eq!((reserve.next(99, 64), reserve.next(100, 64)), (next, 1));
        }
    }

    #[test]
    fn what_is_old_is_not_used() {
        let id: BlobId = "0".repeat(32).parse().expect("an id");
        let mut reserve = Reserve { ready: vec![id; 2], made: 2, extend_at: 100 };
        assert_eq!(reserve.take(99).map(|leased| leased.extend_at), Some(100));
        assert!(reserve.take(100).is_none());
    }
}
