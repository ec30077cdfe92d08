//! A file on its way in.

use bytes::Bytes;
use edd_events::publisher::Cause;
use sha2::{Digest, Sha256};

use super::pieces::Pieces;
use super::{Admitted, Placed, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, Target};

/// Bytes that are being written. Dropped at any point, it leaves garbage that goes when its lease is over; nobody has
/// seen anything of it until [`Incoming::finish`] says that the file is there.
#[derive(Debug)]
pub struct Incoming {
    service: Service,
    actor: Actor,
    cause: Cause,
    target: Target,
    admitted: Admitted,
    received: u64,
    digest: Sha256,
    pieces: Pieces,
}

impl Service {
    /// Begins to write a file. Nothing is written before the first byte comes.
    ///
    /// # Errors
    /// The namespace is not the actor's, the file is there and not to be replaced, or is too large: whatever is known
    /// before the bytes are.
    pub async fn begin(&self, actor: &Actor, target: Target, cause: &Cause) -> Result<Incoming, SfsError> {
        let admitted = self.admit(actor, &target).await?;
        Ok(Incoming {
            service: self.clone(),
            actor: *actor,
            cause: cause.clone(),
            target,
            admitted,
            received: 0,
            digest: Sha256::new(),
            pieces: Pieces::new(self, u64::MAX),
        })
    }
}

impl Incoming {
    /// Writes what comes next.
    ///
    /// # Errors
    /// There is more than was announced, or than there is room for; it took too long; the store fails. The rest is of no
    /// use then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), SfsError> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if let Some(declared) = self.target.declared_bytes.filter(|declared| received > *declared) {
            return Err(SfsError::Length { declared, received });
        }
        self.admitted.check(received)?;
        self.received = received;
        self.digest.update(&bytes);
        self.pieces.write(bytes).await
    }

    /// Makes a file of it, if its bytes are those `expected`.
    ///
    /// # Errors
    /// There are fewer bytes than announced, or others than expected; what was true when it began is so no more. Nothing
    /// of it is kept then.
    pub async fn finish(mut self, expected: Option<Checksum>) -> Result<Entry, SfsError> {
        match self.complete(expected).await {
            Ok(entry) => Ok(entry),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self, expected: Option<Checksum>) -> Result<Entry, SfsError> {
        let received = self.received;
        if let Some(declared) = self.target.declared_bytes.filter(|declared| received != *declared) {
            return Err(SfsError::Length { declared, received });
        }
        let actual = Checksum(self.digest.finalize_reset().into());
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(SfsError::Checksum { expected, actual });
        }
        self.pieces.close().await?;
        let mut transaction = self.service.begin_change().await?;
        let placed = Placed {
            actor: &self.actor,
            cause: &self.cause,
            namespace: self.admitted.namespace.number,
            path: &self.target.path,
            replace: self.target.replace,
            media_type: &self.target.media_type,
            pieces: self.pieces.whole(),
            checksum: actual,
        };
        let entry = self.service.place(&mut transaction, &placed).await?;
        self.service.commit(transaction).await?;
        self.pieces.settle();
        Ok(entry)
    }

    /// Gives it up: what was written goes at once, instead of when its lease is over.
    pub async fn abort(self) {
        self.pieces.abort().await;
    }
}
