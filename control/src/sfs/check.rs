//! Compares what the database says with what is in the store, and the tables with each other; repairs what can be.
//!
//! It reads page by page, in constant memory, and may run while the share is used: what it finds it looks at again, under
//! the locks that everybody takes, before it changes anything. An object that is younger than the lease of its writer is
//! left alone.

mod difference;

use edd_events::clock::micros;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::sfs::error::SfsError;
use crate::sfs::model::Checksum;
use crate::sfs::service::Service;
use crate::sfs::storage::{Object, StorageError};
use crate::sfs::store::blobs;
use crate::sfs::store::differences::{self, Content};

pub use difference::{Difference, Finding, Outcome};

/// Rows, or objects, that are in memory at a time.
const PAGE: u32 = 500;
/// Objects that the store is asked about at a time.
const AT_ONCE: usize = 16;
/// Files that a finding names.
const NAMED: u32 = 10;

/// What a check does besides looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Reads all bytes and compares their SHA-256.
    pub reads_content: bool,
    /// Repairs what can be repaired without losing anything that anybody has.
    pub repairs: bool,
    /// Deletes files of which bytes are lost, too. Without this they stay, to be seen and asked for.
    pub deletes_lost: bool,
}

/// What was looked at, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub objects: u64,
    pub blobs: u64,
    pub contents: u64,
    pub namespaces: u64,
    pub differences: u64,
    pub repaired: u64,
}

/// One check.
pub struct Check<'a> {
    service: &'a Service,
    options: Options,
    tell: &'a mut (dyn FnMut(&Finding) + Send),
    summary: Summary,
}

impl Check<'_> {
    /// Looks at everything; `tell` is told of every difference as it is found, and has been repaired or not.
    ///
    /// # Errors
    /// The database or the store fails: what was not looked at is not known.
    pub async fn run(
        service: &Service,
        options: Options,
        tell: &mut (dyn FnMut(&Finding) + Send),
    ) -> Result<Summary, SfsError> {
        let mut check = Check { service, options, tell, summary: Summary::default() };
        check.objects().await?;
        check.loose().await?;
        check.blobs().await?;
        check.contents().await?;
        check.entries().await?;
        check.usage().await?;
        Ok(check.summary)
    }

    fn found(&mut self, difference: Difference, outcome: Outcome) {
        self.summary.differences += 1;
        self.summary.repaired += u64::from(outcome == Outcome::Repaired);
        (self.tell)(&Finding { difference, outcome });
    }

    /// Objects without rows. A row is there before its object is, and goes after it: there is no moment at which an
    /// object that is needed has none.
    ///
    /// Where the database knows no object at all, it is more likely another store's than that all of them are garbage.
    async fn objects(&mut self) -> Result<(), SfsError> {
        let knows_any = !blobs::page(self.service.database().reader(), None, 1).await?.is_empty();
        let mut pages = self.service.store().list().try_ready_chunks(PAGE as usize).boxed();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| error.1)?;
            self.summary.objects += page.len() as u64;
            let ids: Vec<_> = page.iter().map(|object| object.id).collect();
            let known = blobs::of_ids(self.service.database().reader(), &ids).await?;
            if self.options.repairs && !knows_any {
                let message =
                    "the database knows nothing of what is in the store: is it this store's? nothing is repaired";
                return Err(SfsError::conflict(message));
            }
            for object in page.iter().filter(|object| known.iter().all(|known| known.id != object.id)) {
                self.stray(*object).await?;
            }
        }
        Ok(())
    }

    async fn stray(&mut self, object: Object) -> Result<(), SfsError> {
        let lease = micros(self.service.config().leases.write);
        let is_young = object.modified_at > self.service.now().saturating_sub(lease);
        let difference = Difference::Stray { blob: object.id, bytes: object.bytes };
        let outcome = match (is_young, self.options.repairs) {
            (true, _) => Outcome::TooYoung,
            (false, false) => Outcome::Repairable,
            (false, true) => {
                self.service.store().delete(object.id).await?;
                Outcome::Repaired
            }
        };
        self.found(difference, outcome);
        Ok(())
    }

    /// Rows that are kept for nothing.
    async fn loose(&mut self) -> Result<(), SfsError> {
        let mut after = None;
        loop {
            let database = self.service.database();
            let page = differences::loose(database.reader(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for blob in page {
                if self.options.repairs {
                    differences::release(database.writer(), blob, self.service.read_lease()).await?;
                }
                self.found(Difference::Loose { blob }, self.outcome());
            }
        }
    }

    /// What comes of a difference that can be repaired.
    fn outcome(&self) -> Outcome {
        if self.options.repairs { Outcome::Repaired } else { Outcome::Repairable }
    }

    /// Rows without objects, and objects of other sizes than they should have.
    async fn blobs(&mut self) -> Result<(), SfsError> {
        let mut after = None;
        loop {
            let page = blobs::page(self.service.database().reader(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            self.summary.blobs += page.len() as u64;
            let store = self.service.store();
            let kept = page.into_iter().filter(|blob| blob.is_kept);
            let sizes = kept.map(|blob| async move { Ok::<_, StorageError>((blob, store.size(blob.id).await?)) });
            let sizes: Vec<_> = stream::iter(sizes).buffer_unordered(AT_ONCE).try_collect().await?;
            for (blob, size) in sizes {
                if size != Some(blob.size) {
                    self.differs(blob, size).await?;
                }
            }
        }
    }

    async fn differs(&mut self, blob: blobs::Known, actual: Option<u64>) -> Result<(), SfsError> {
        // It may have been let go meanwhile.
        let again = blobs::of_ids(self.service.database().reader(), &[blob.id]).await?;
        if again.first() != Some(&blob) {
            return Ok(());
        }
        let difference = match actual {
            None => Difference::Lost { blob: blob.id, bytes: blob.size },
            Some(actual) => Difference::Size { blob: blob.id, expected: blob.size, actual },
        };
        self.damaged(difference, blob.content).await
    }

    /// Bytes of a content are gone, or others than they were.
    async fn damaged(&mut self, difference: Difference, content: Option<i64>) -> Result<(), SfsError> {
        let named = match content {
            Some(content) => differences::files_of(self.service.database().reader(), content, NAMED).await?,
            None => Vec::new(),
        };
        let is_deleted = self.options.repairs && self.options.deletes_lost && content.is_some();
        if let Some(content) = content.filter(|_| is_deleted) {
            self.service.delete_lost(content).await?;
        }
        let outcome = if is_deleted { Outcome::Repaired } else { Outcome::Kept };
        self.found(Difference::Damaged { what: Box::new(difference), files: named }, outcome);
        Ok(())
    }

    /// Counts of files that share a content, and bytes.
    async fn contents(&mut self) -> Result<(), SfsError> {
        let mut after = 0;
        loop {
            let page = differences::contents(self.service.database().reader(), after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            self.summary.contents += page.len() as u64;
            for content in page {
                self.content(&content).await?;
            }
        }
    }

    async fn content(&mut self, content: &Content) -> Result<(), SfsError> {
        let number = content.number;
        if content.refs != content.files {
            if self.options.repairs {
                let mut transaction = self.service.begin_change().await?;
                differences::recount(&mut transaction, number, self.service.read_lease()).await?;
                self.service.commit(transaction).await?;
            }
            let difference = Difference::References { content: number, counted: content.refs, actual: content.files };
            self.found(difference, self.outcome());
        }
        if content.size != content.blob_bytes {
            let (expected, actual) = (content.size, content.blob_bytes);
            return self.damaged(Difference::Pieces { content: number, expected, actual }, Some(number)).await;
        }
        if self.options.reads_content
            && let Some(actual) = self.read(content).await?.filter(|actual| *actual != content.checksum)
        {
            let difference = Difference::Checksum { content: number, expected: content.checksum, actual };
            self.damaged(difference, Some(number)).await?;
        }
        Ok(())
    }

    /// The SHA-256 of what is in the store. None: it was let go meanwhile, or is damaged in a way that was told already.
    async fn read(&self, content: &Content) -> Result<Option<Checksum>, SfsError> {
        let mut digest = Sha256::new();
        for piece in differences::pieces(self.service.database().reader(), content.number).await? {
            let mut bytes = self.service.store().read(piece.id, 0..piece.size).boxed();
            while let Some(next) = bytes.next().await {
                match next {
                    Ok(next) => digest.update(&next),
                    Err(StorageError::Missing(_) | StorageError::Short(_)) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let page = differences::contents(self.service.database().reader(), content.number - 1, 1).await?;
        let is_there = page.first().is_some_and(|again| again.number == content.number);
        Ok(is_there.then(|| Checksum(digest.finalize().into())))
    }

    /// Files of which the content is gone, and entries in folders that are not there.
    async fn entries(&mut self) -> Result<(), SfsError> {
        let mut after = None;
        loop {
            let page = differences::headless(self.service.database().reader(), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for file in page {
                let is_deleted = self.options.repairs && self.options.deletes_lost;
                if is_deleted {
                    self.service.delete_file(&file, None).await?;
                }
                let outcome = if is_deleted { Outcome::Repaired } else { Outcome::Kept };
                self.found(Difference::Headless { file }, outcome);
            }
        }
        let mut after = None;
        loop {
            let page = differences::homeless(self.service.database().reader(), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for entry in page {
                let is_repaired = self.options.repairs && self.service.house(&entry).await?;
                let outcome = match (is_repaired, self.options.repairs) {
                    (true, _) => Outcome::Repaired,
                    (false, true) => Outcome::Kept,
                    (false, false) => Outcome::Repairable,
                };
                self.found(Difference::Homeless { entry }, outcome);
            }
        }
    }

    /// What namespaces are said to use.
    async fn usage(&mut self) -> Result<(), SfsError> {
        let mut after = 0;
        while let Some(usage) = differences::next_usage(self.service.database().reader(), after).await? {
            after = usage.number;
            self.summary.namespaces += 1;
            if usage.counted == usage.actual {
                continue;
            }
            if self.options.repairs {
                self.service.recount(usage.number).await?;
            }
            let difference = Difference::Usage {
                namespace: usage.name,
                counted_bytes: usage.counted.bytes,
                actual_bytes: usage.actual.bytes,
                counted_entries: usage.counted.entries(),
                actual_entries: usage.actual.entries(),
            };
            self.found(difference, self.outcome());
        }
        Ok(())
    }
}
