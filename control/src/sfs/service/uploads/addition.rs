//! What one request adds to a resumable upload.

use std::time::Duration;

use bytes::Bytes;
use edd_events::clock::{Micros, micros};
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use sha2_resumable::digest::common::hazmat::SerializableState;
use sha2_resumable::{Digest, Sha256};

use super::digest::resumed;
use super::{Keep, UploadError};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, Replace, Upload, UploadId};
use crate::sfs::service::access::lock;
use crate::sfs::service::pieces::Pieces;
use crate::sfs::service::{Placed, Service};
use crate::sfs::store::uploads::{self, Arrival};

/// How often who adds to an upload looks whether they still may, and writes down what came if it is enough to be a piece:
/// more is not lost with a connection or a process.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After so many bytes, what came is written down without a look at the clock.
const LARGEST_PIECE_BYTES: u64 = 64 << 20;

/// What is being added to an upload. Dropped, it leaves what it has written down.
#[derive(Debug)]
pub struct Addition {
    service: Service,
    actor: Actor,
    cause: Cause,
    upload: Upload,
    /// Of the last who came to add to it: what another brings is refused.
    lease: String,
    keep: Keep,
    /// Of all bytes up to the last.
    digest: Sha256,
    /// Bytes of `pieces`.
    pending: u64,
    pieces: Pieces,
    look_at: Micros,
}

impl Service {
    /// Goes on with an upload at `offset`. Whoever did so until now is overtaken, because nobody here can know whether
    /// their connection, or their process, is alive: what they have not written down is nobody's.
    ///
    /// # Errors
    /// It does not go on there.
    pub async fn add_to_upload(
        &self,
        actor: &Actor,
        id: UploadId,
        offset: u64,
        keep: Keep,
        cause: &Cause,
    ) -> Result<Addition, UploadError> {
        self.upload(actor, id).await?;
        let lease = self.random_lease();
        let Some(upload) = uploads::take(self.database().writer(), id, offset, &lease).await? else {
            return Err(match self.upload(actor, id).await?.received {
                received if received == offset => UploadError::Overtaken,
                received => UploadError::Offset { received, offset },
            });
        };
        Ok(Addition {
            service: self.clone(),
            actor: *actor,
            cause: cause.clone(),
            lease,
            keep,
            digest: resumed(&upload.digest_state)?,
            pending: 0,
            pieces: Pieces::new(self, u64::MAX),
            look_at: self.now() + micros(LOOK_EVERY),
            upload,
        })
    }
}

impl Addition {
    /// Bytes of the file that have come, those of this addition included.
    pub fn received(&self) -> u64 {
        self.upload.received + self.pending
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// It is more than was announced; somebody else goes on with the upload; the store fails.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        if self.received() + bytes.len() as u64 > self.upload.length {
            return Err(UploadError::TooLong { length: self.upload.length });
        }
        self.look().await?;
        let most = self.most_pending_bytes();
        while !bytes.is_empty() {
            // A piece ends where the digest of all before it is known.
            let room = usize::try_from(most.saturating_sub(self.pending)).unwrap_or(usize::MAX);
            let next = bytes.split_to(bytes.len().min(room));
            self.digest.update(&next);
            self.pending += next.len() as u64;
            self.pieces.write(next).await?;
            if self.pending >= most && self.received() < self.upload.length {
                self.write_down().await?;
            }
        }
        Ok(())
    }

    /// Keeps what came. The file, if that was the last of it.
    ///
    /// # Errors
    /// As of [`Service::begin`], now that the file is to be where it belongs: the upload is over then.
    pub async fn finish(mut self) -> Result<(Upload, Option<Entry>), UploadError> {
        let outcome = self.complete().await;
        if let Err(UploadError::Sfs(error)) = &outcome
            && is_final(error)
        {
            self.give_up().await;
        }
        match outcome {
            Ok(entry) => Ok((self.upload, entry)),
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    /// Keeps nothing of what came since it was last written down.
    pub async fn discard(self) {
        self.pieces.abort().await;
    }

    async fn complete(&mut self) -> Result<Option<Entry>, UploadError> {
        if self.received() < self.upload.length {
            self.write_down().await?;
            return Ok(None);
        }
        self.pieces.close().await?;
        let mut transaction = self.service.begin_change().await?;
        // Before the upload: the order in which rows are locked.
        lock(&mut transaction, &self.actor, self.upload.namespace).await?;
        self.append(&mut transaction).await?;
        // From here on it is counted as a file instead.
        if !uploads::complete(&mut *transaction, self.upload.id, &self.lease, self.service.now()).await? {
            return Err(UploadError::Overtaken);
        }
        let most = self.service.config().quotas.upload_blobs;
        let pieces = uploads::pieces(&mut *transaction, self.upload.id, most.saturating_add(1)).await?;
        let checksum = Checksum(self.digest.clone().finalize().into());
        let placed = Placed {
            actor: &self.actor,
            cause: &self.cause,
            namespace: self.upload.namespace,
            path: &self.upload.path,
            replace: if self.upload.overwrite { Replace::Always } else { Replace::Never },
            media_type: &self.upload.media_type,
            pieces: &pieces,
            checksum,
        };
        let entry = self.service.place(&mut transaction, &placed).await?;
        self.service.commit(transaction).await?;
        self.settle();
        Ok(Some(entry))
    }

    /// Makes what has come outlive this process.
    async fn write_down(&mut self) -> Result<(), UploadError> {
        if self.pending == 0 {
            return Ok(());
        }
        self.pieces.close().await?;
        let mut transaction = self.service.begin_change().await?;
        self.append(&mut transaction).await?;
        self.service.commit(transaction).await?;
        self.settle();
        Ok(())
    }

    /// Adds the rows of what is whole, which is all that is pending.
    async fn append(&self, transaction: &mut Transaction) -> Result<(), UploadError> {
        let most = self.service.config().quotas.upload_blobs;
        let pieces = self.pieces.whole();
        if u64::from(self.upload.blobs) + pieces.len() as u64 > u64::from(most) {
            let least_bytes = self.service.least_piece_bytes(self.upload.length);
            return Err(UploadError::TooManyPieces { most, least_bytes });
        }
        let (digest_state, expires_at) = (self.digest.serialize(), self.service.upload_expiry());
        for (ordinal, piece) in (self.upload.blobs..).zip(pieces) {
            let arrival = Arrival { piece: *piece, ordinal, digest_state: &digest_state, expires_at };
            if !uploads::append(transaction, self.upload.id, &self.lease, &arrival).await? {
                return Err(UploadError::Overtaken);
            }
        }
        Ok(())
    }

    /// What was pending is the upload's.
    fn settle(&mut self) {
        let pieces = u32::try_from(self.pieces.whole().len()).unwrap_or(u32::MAX);
        self.upload.received += std::mem::take(&mut self.pending);
        self.upload.blobs = self.upload.blobs.saturating_add(pieces);
        self.upload.expires_at = self.service.upload_expiry();
        self.pieces.settle();
    }

    /// Looks whether it is still this one that goes on, if it is time to.
    async fn look(&mut self) -> Result<(), UploadError> {
        let now = self.service.now();
        if now < self.look_at {
            return Ok(());
        }
        let (database, expires_at) = (self.service.database(), self.service.upload_expiry());
        if !uploads::renew(database.writer(), self.upload.id, &self.lease, expires_at).await? {
            return Err(UploadError::Overtaken);
        }
        self.look_at = now + micros(LOOK_EVERY);
        let least = self.service.least_piece_bytes(self.upload.length);
        if self.keep == Keep::Everything && self.pending >= least {
            self.write_down().await?;
        }
        Ok(())
    }

    fn most_pending_bytes(&self) -> u64 {
        match self.keep {
            Keep::Everything => LARGEST_PIECE_BYTES.max(self.service.least_piece_bytes(self.upload.length)),
            Keep::Whole => u64::MAX,
        }
    }

    /// Ends an upload that cannot become a file any more: a client that asks for its offset must not believe that it did.
    async fn give_up(&self) {
        let ended = async {
            let (id, now) = (self.upload.id, self.service.now());
            let mut transaction = self.service.begin_change().await?;
            // Not under another's feet.
            if uploads::renew(&mut *transaction, id, &self.lease, now).await? {
                uploads::delete(&mut transaction, id, now).await?;
                self.service.commit(transaction).await?;
            }
            Ok::<_, SfsError>(())
        };
        if let Err(error) = ended.await {
            tracing::warn!(upload = %self.upload.id, %error, "an upload that failed goes when its time is over");
        }
    }
}

/// Whether trying again changes nothing.
fn is_final(error: &SfsError) -> bool {
    !matches!(
        error,
        SfsError::Busy | SfsError::NoRoom | SfsError::Storage(_) | SfsError::Publish(_) | SfsError::Database(_)
    )
}
