//! Resumable uploads: begun, added to, ended. What each addition brings is kept, whatever breaks after it.

mod addition;
mod digest;

use edd_events::clock::{Micros, micros};
use rand::RngExt;
use sha2_resumable::digest::common::hazmat::SerializableState;
use sha2_resumable::{Digest, Sha256};

use super::Service;
use super::access::lock;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Replace, Target, Upload, UploadId};
use crate::sfs::store::namespaces::Change;
use crate::sfs::store::signed;
use crate::sfs::store::uploads;

pub use addition::Addition;

/// Uploads that are given up in one go.
const EXPIRED_AT_ONCE: u32 = 100;

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("a later request goes on with this upload, or has ended it: ask for its offset")]
    Overtaken,
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
        if upload.expires_at <= self.now() {
            return Err(UploadError::Expired);
        }
        Ok(upload)
    }

    /// Gives an upload of the actor's up. Who adds to it finds that it is gone.
    ///
    /// # Errors
    /// They have no such one.
    pub async fn cancel_upload(&self, actor: &Actor, id: UploadId) -> Result<(), UploadError> {
        self.upload(actor, id).await?;
        let mut transaction = self.begin_change().await?;
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
            if locked.is_some_and(|upload| upload.expires_at <= now) {
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
