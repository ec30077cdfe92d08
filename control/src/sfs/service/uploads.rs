//! Resumable uploads: begun, added to, ended. What each addition brings is kept, whatever breaks after it.

use std::time::Duration;

use bytes::Bytes;
use edd_events::clock::{Micros, micros};
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use rand::RngExt;
use sha2_resumable::digest::common::hazmat::{SerializableState, SerializedState};
use sha2_resumable::{Digest, Sha256};

use super::access::lock;
use super::pieces::Pieces;
use super::{Placed, Service};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Checksum, Entry, Replace, Target, Upload, UploadId};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::signed;
use crate::sfs::store::uploads::{self, Arrival};

/// Who adds to an upload says so three times in this. A connection that is dead and not closed, or a process that is,
/// keeps others from going on for so long.
const LEASE: Duration = Duration::from_secs(15);
/// After so many bytes, what came is written down, so that it outlives this process.
const LEAST_PIECE_BYTES: u64 = 64 << 20;
/// Uploads that are given up in one go.
const EXPIRED_AT_ONCE: u32 = 100;

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("another request adds to this upload: try again when it has ended")]
    Busy,
    #[error("the upload goes on at byte {received}, not at {offset}: ask for its offset")]
    Offset { received: u64, offset: u64 },
    #[error("the upload was not gone on with in time, and is deleted: begin again")]
    Expired,
    #[error("the file has {length} bytes, as its upload was created with, and more than those came")]
    TooLong { length: u64 },
    #[error("an upload has at most {most} pieces: begin again with pieces of at least {least_bytes} bytes")]
    TooManyPieces { most: u32, least_bytes: u64 },
    #[error(transparent)]
    Sfs(#[from] SfsError),
}

impl From<sqlx::Error> for UploadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sfs(error.into())
    }
}

/// When what is added counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As it comes.
    Everything,
    /// All of it at the end, or nothing: it has a checksum that is yet to be compared.
    Whole,
}

/// What is being added to an upload. Dropped, it leaves what it has written down; others may go on after [`LEASE`].
#[derive(Debug)]
pub struct Addition {
    service: Service,
    actor: Actor,
    cause: Cause,
    upload: Upload,
    lease: String,
    /// After so many, what is pending is written down.
    piece_bytes: u64,
    /// Of all bytes up to the last.
    digest: Sha256,
    /// Bytes of `pieces`.
    pending: u64,
    pieces: Pieces,
    renew_at: Micros,
}

impl Service {
    /// Begins an upload of `length` bytes, which count as used from now on.
    ///
    /// # Errors
    /// As of [`Service::begin`], or the user has too many uploads open.
    pub async fn create_upload(&self, actor: &Actor, target: &Target, length: u64) -> Result<Upload, SfsError> {
        let namespace = self.admit(actor, target).await?.namespace.number;
        let mut transaction = self.begin_change().await?;
        let namespace = lock(&mut transaction, actor, namespace).await?;
        let most = self.config().quotas.open_uploads;
        if uploads::count_open(&mut *transaction, actor.owner.user).await? >= i64::from(most) {
            return Err(SfsError::Count { what: "uploads that have begun", most });
        }
        let change = Change { bytes: signed(length), ..Change::default() };
        self.check_room(&mut transaction, &namespace, change).await?;
        let upload = Upload {
            id: UploadId::random(&mut *self.0.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner)),
            namespace: namespace.number,
            path: target.path.clone(),
            uploader: actor.owner,
            length,
            received: 0,
            blobs: 0,
            media_type: target.media_type.clone(),
            overwrite: target.replace == Replace::Always,
            digest_state: Sha256::new().serialize().to_vec(),
            lease: None,
            leased_until: 0,
            expires_at: self.upload_expiry(),
            completed_at: None,
            created_at: self.now(),
        };
        uploads::insert(&mut *transaction, &upload).await?;
        self.commit(transaction).await?;
        Ok(upload)
    }

    /// How far an upload of the actor's is.
    ///
    /// # Errors
    /// They have no such one, or its time is over.
    pub async fn upload(&self, actor: &Actor, id: UploadId) -> Result<Upload, UploadError> {
        let found = uploads::by_id(self.database().reader(), id).await?;
        let upload = found.filter(|upload| upload.is_of(actor)).ok_or(NO_UPLOAD)?;
        if upload.expires_at <= self.now() && upload.leased_until <= self.now() {
            return Err(UploadError::Expired);
        }
        Ok(upload)
    }

    /// Goes on with an upload at `offset`; nobody else can until that has ended.
    ///
    /// # Errors
    /// Somebody does so now, or it does not go on there.
    pub async fn add_to_upload(
        &self,
        actor: &Actor,
        id: UploadId,
        offset: u64,
        keep: Keep,
        cause: &Cause,
    ) -> Result<Addition, UploadError> {
        let seen = self.upload(actor, id).await?;
        if seen.received != offset {
            return Err(UploadError::Offset { received: seen.received, offset });
        }
        let (now, lease) = (self.now(), self.random_lease());
        let taken = uploads::take(self.database().writer(), id, &lease, now, now + micros(LEASE)).await?;
        // Also if it was completed or deleted a moment ago: the next try tells.
        let upload = taken.ok_or(UploadError::Busy)?;
        let digest = match resumed(&upload.digest_state) {
            Ok(digest) if upload.received == offset => digest,
            outcome => {
                uploads::release(self.database().writer(), id, &lease).await?;
                outcome?;
                return Err(UploadError::Offset { received: upload.received, offset });
            }
        };
        let piece_bytes = match keep {
            Keep::Everything => LEAST_PIECE_BYTES.max(self.least_piece_bytes(upload.length)),
            Keep::Whole => u64::MAX,
        };
        Ok(Addition {
            service: self.clone(),
            actor: *actor,
            cause: cause.clone(),
            lease,
            piece_bytes,
            digest,
            pending: 0,
            pieces: Pieces::new(self, u64::MAX),
            renew_at: now + micros(LEASE / 3),
            upload,
        })
    }

    /// Gives an upload of the actor's up.
    ///
    /// # Errors
    /// They have no such one, or somebody adds to it.
    pub async fn cancel_upload(&self, actor: &Actor, id: UploadId) -> Result<(), UploadError> {
        self.upload(actor, id).await?;
        let mut transaction = self.begin_change().await?;
        let upload = uploads::lock(&mut transaction, id).await?.ok_or(NO_UPLOAD)?;
        if upload.leased_until > self.now() {
            return Err(UploadError::Busy);
        }
        uploads::delete(&mut transaction, id, self.now()).await?;
        Ok(self.commit(transaction).await?)
    }

    /// Forgets some of the uploads whose time is over. Whether there are more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn expire_uploads(&self) -> Result<bool, SfsError> {
        let now = self.now();
        let expired = uploads::expired(self.database().reader(), now, EXPIRED_AT_ONCE).await?;
        for id in &expired {
            let mut transaction = self.begin_change().await?;
            let locked = uploads::lock(&mut transaction, *id).await?;
            if locked.is_some_and(|upload| upload.expires_at <= now && upload.leased_until <= now) {
                uploads::delete(&mut transaction, *id, now).await?;
                self.commit(transaction).await?;
            }
        }
        Ok(expired.len() == EXPIRED_AT_ONCE as usize)
    }

    fn upload_expiry(&self) -> Micros {
        self.now().saturating_add(micros(self.config().leases.upload))
    }

    /// So many that an upload of `length` bytes has no more pieces than it may.
    fn least_piece_bytes(&self, length: u64) -> u64 {
        // Half of them, because the end of each request ends a piece.
        length.div_ceil(u64::from(self.config().quotas.upload_blobs / 2).max(1))
    }

    fn random_lease(&self) -> String {
        let number: u128 = self.0.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner).random();
        format!("{number:032x}")
    }
}

const NO_UPLOAD: UploadError = UploadError::Sfs(SfsError::NotFound("upload"));

/// A digest that goes on where it was left.
fn resumed(state: &[u8]) -> Result<Sha256, SfsError> {
    let broken = |what: &str| sqlx::Error::ColumnDecode { index: "digest_state".to_owned(), source: what.into() };
    let state = SerializedState::<Sha256>::try_from(state).map_err(|_| broken("it has another length"))?;
    Ok(Sha256::deserialize(&state).map_err(|_| broken("it is no state of a SHA-256"))?)
}

impl Addition {
    /// Bytes of the file that have come, those of this addition included.
    pub fn received(&self) -> u64 {
        self.upload.received + self.pending
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// It is more than was announced; somebody else goes on, because nothing came for long; the store fails.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), UploadError> {
        if self.received() + bytes.len() as u64 > self.upload.length {
            return Err(UploadError::TooLong { length: self.upload.length });
        }
        self.renew().await?;
        while !bytes.is_empty() {
            // A piece ends where the digest of all before it is known.
            let room = usize::try_from(self.piece_bytes - self.pending).unwrap_or(usize::MAX);
            let next = bytes.split_to(bytes.len().min(room));
            self.digest.update(&next);
            self.pending += next.len() as u64;
            self.pieces.write(next).await?;
            if self.pending == self.piece_bytes && self.received() < self.upload.length {
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
        let released = uploads::release(self.service.database().writer(), self.upload.id, &self.lease).await;
        if let Err(error) = released {
            tracing::warn!(upload = %self.upload.id, %error, "an upload goes on when its lease is over");
        }
    }

    async fn complete(&mut self) -> Result<Option<Entry>, UploadError> {
        if self.received() < self.upload.length {
            self.write_down().await?;
            let database = self.service.database();
            uploads::release(database.writer(), self.upload.id, &self.lease).await?;
            return Ok(None);
        }
        self.pieces.close().await?;
        let mut transaction = self.service.begin_change().await?;
        // Before the upload: the order in which rows are locked.
        lock(&mut transaction, &self.actor, self.upload.namespace).await?;
        self.append(&mut transaction).await?;
        // From here on it is counted as a file instead.
        uploads::complete(&mut *transaction, self.upload.id, self.service.now()).await?;
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
                return Err(UploadError::Busy);
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

    /// Says that it goes on, if it is time to.
    async fn renew(&mut self) -> Result<(), UploadError> {
        let now = self.service.now();
        if now < self.renew_at {
            return Ok(());
        }
        let (database, until) = (self.service.database(), now + micros(LEASE));
        let expires_at = self.service.upload_expiry();
        if !uploads::renew(database.writer(), self.upload.id, &self.lease, until, expires_at).await? {
            return Err(UploadError::Busy);
        }
        self.renew_at = now + micros(LEASE / 3);
        Ok(())
    }

    /// Ends an upload that cannot become a file any more: a client that asks for its offset must not believe that it did.
    async fn give_up(&self) {
        let ended = async {
            let mut transaction = self.service.begin_change().await?;
            uploads::delete(&mut transaction, self.upload.id, self.service.now()).await?;
            self.service.commit(transaction).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_goes_on_where_it_was_left() {
        for at in [0, 1, 63, 64, 65, 1000] {
            let text = [b'x'; 1000];
            let mut begun = Sha256::new();
            begun.update(&text[..at]);
            let mut resumed = resumed(&begun.serialize()).expect("a digest");
            resumed.update(&text[at..]);
            assert_eq!(resumed.finalize(), Sha256::digest(text), "{at}");
        }
        for broken in [&[][..], &[0; 10]] {
            assert!(resumed(broken).is_err());
        }
    }
}
