//! A service with a clock that stands still, and who asks it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edd_events::clock::ManualClock;
use edd_events::database::{Database, Kind};
use edd_events::message::Message;
use edd_events::outbox;
use edd_events::publisher::{Cause, Publisher};
use edd_proto::{AnyEvent, Encoding};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use sqlx::Row;

use crate::caller::Caller;
use crate::scratch::Scratch;
use crate::sfs::check::{Check, Finding, Options};
use crate::sfs::config::SfsConfig;
use crate::sfs::error::SfsError;
use crate::sfs::keeper::Keeper;
use crate::sfs::model::{
    Actor, Checksum, Entry, FilePath, MediaType, Namespace, NamespaceName, Replace, Target, Visibility, Visitor,
};
use crate::sfs::service::{Deletion, Foundation, Listing, NewNamespace, Opened, Service};
use crate::sfs::storage::BlobStore;
use crate::sfs::{SOURCE, STEPS};

pub const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
pub const BOB: &str = "W1StGXR8_Z5jdHi6B-myT";
/// An administrator.
pub const ROOT: &str = "X1StGXR8_Z5jdHi6B-myT";
/// Long after the files of the tests are made, of which the age is real.
pub const NOW: i64 = 4_102_444_800_000_000;

pub struct Fixture {
    scratch: Scratch,
    pub clock: ManualClock,
    pub database: Database,
    pub store: BlobStore,
    pub service: Service,
}

pub fn name(text: &str) -> NamespaceName {
    text.parse().expect("a name")
}

pub fn path(text: &str) -> FilePath {
    text.parse().expect("a path")
}

pub fn checksum(bytes: &[u8]) -> Checksum {
    Checksum(Sha256::digest(bytes).into())
}

pub fn cause() -> Cause {
    Cause { correlation_id: "the request".to_owned(), trace_parent: String::new() }
}

/// Whoever is called so, with all rights that they have.
pub fn actor(user: &str) -> Actor {
    let caller = Caller {
        user: user.parse().expect("an id"),
        number: i64::from(user.as_bytes()[0]),
        username: user.into(),
        display_name: user.into(),
        is_admin: user == ROOT,
        session: "s1".into(),
        scopes: None,
    };
    let permit = caller.may("storage", "write", &["namespaces"]).expect("a permit");
    Actor::new(&caller, permit)
}

pub fn target(namespace: &str, at: &str) -> Target {
    let at = path(at);
    let media_type = MediaType::of_name(&at);
    Target { namespace: name(namespace), path: at, replace: Replace::Never, declared_bytes: None, media_type }
}

impl Fixture {
    pub async fn new(kind: Kind) -> Self {
        Self::with(kind, SfsConfig::default()).await
    }

    pub async fn with(kind: Kind, config: SfsConfig) -> Self {
        let scratch = Scratch::new(kind);
        let store = BlobStore::local(&scratch.folder.path().join("blobs")).expect("a store");
        Self::on(scratch, store, config).await
    }

    pub async fn on(scratch: Scratch, store: BlobStore, config: SfsConfig) -> Self {
        // So that there is a row for each object.
        Self::ahead(scratch, store, SfsConfig { blobs_ahead: 1, ..config }).await
    }

    /// One that makes rows of blobs ahead.
    pub async fn ahead(scratch: Scratch, store: BlobStore, config: SfsConfig) -> Self {
        let database = scratch.open(&STEPS).await;
        let clock = ManualClock::at(NOW);
        let foundation = Foundation {
            database: database.clone(),
            publisher: Publisher::new(SOURCE, Encoding::Protobuf, Arc::new(clock.clone())),
            clock: Arc::new(clock.clone()),
            store: store.clone(),
        };
        Self { scratch, clock, database, store, service: Service::new(config, foundation) }
    }

    /// Where the bytes are.
    pub fn blobs(&self) -> PathBuf {
        self.scratch.folder.path().join("blobs")
    }

    /// Another process with the same database and store.
    pub async fn another(&self) -> Service {
        let foundation = Foundation {
            database: self.scratch.open(&STEPS).await,
            publisher: Publisher::new(SOURCE, Encoding::Protobuf, Arc::new(self.clock.clone())),
            clock: Arc::new(self.clock.clone()),
            store: self.store.clone(),
        };
        Service::new(self.service.config().clone(), foundation)
    }

    /// A namespace of the user's.
    pub async fn namespace(&self, user: &str, called: &str, visibility: Visibility) -> Namespace {
        let new = NewNamespace { name: name(called), visibility, is_hidden: false };
        self.service.create_namespace(&actor(user), new, &cause()).await.expect("a namespace")
    }

    /// Writes a file as Ann.
    pub async fn put(&self, target: Target, bytes: &[u8]) -> Result<Entry, SfsError> {
        self.put_as(ANN, target, bytes).await
    }

    pub async fn put_as(&self, user: &str, target: Target, bytes: &[u8]) -> Result<Entry, SfsError> {
        let mut incoming = self.service.begin(&actor(user), target, &cause()).await?;
        for piece in bytes.chunks(1000) {
            incoming.write(Bytes::copy_from_slice(piece)).await?;
        }
        incoming.finish(None).await
    }

    /// Writes a file of Ann's, whatever is there.
    pub async fn file(&self, namespace: &str, at: &str, bytes: &[u8]) -> Entry {
        let target = Target { replace: Replace::Always, ..target(namespace, at) };
        self.put(target, bytes).await.expect("a file")
    }

    pub async fn open(&self, user: &str, namespace: &str, at: &str) -> Result<Opened, SfsError> {
        self.service.open(&Visitor::User(actor(user)), &name(namespace), &path(at)).await
    }

    /// All bytes of a file, as Ann reads them.
    pub async fn read(&self, namespace: &str, at: &str) -> Vec<u8> {
        read(&self.open(ANN, namespace, at).await.expect("a file")).await
    }

    /// The paths of all files in a namespace.
    pub async fn paths(&self, namespace: &str) -> Vec<String> {
        let listing = Listing { is_deep: true, most: 1000, ..Listing::default() };
        let listed = self.service.list(&Visitor::User(actor(ROOT)), &name(namespace), &listing).await;
        listed.expect("a list").into_iter().map(|entry| entry.path.to_string()).collect()
    }

    pub async fn delete(&self, user: &str, namespace: &str, at: &str, is_recursive: bool) -> Result<(), SfsError> {
        let deletion = Deletion { is_recursive, expected: None };
        self.service.delete_entry(&actor(user), &name(namespace), &path(at), deletion, &cause()).await
    }

    /// The namespace as an administrator sees it.
    pub async fn seen(&self, called: &str) -> Namespace {
        self.service.namespace(&Visitor::User(actor(ROOT)), &name(called)).await.expect("a namespace")
    }

    /// Bytes, files and folders that are counted of it.
    pub async fn used(&self, called: &str) -> (u64, u64, u64) {
        let seen = self.seen(called).await;
        (seen.used_bytes, seen.files, seen.folders)
    }

    /// Lets time go by, and takes away what is garbage after it.
    pub async fn later(&self, by: Duration) {
        self.clock.advance(by);
        self.keep().await;
    }

    pub async fn keep(&self) {
        Keeper::new(self.service.clone()).round().await.expect("a round");
    }

    /// Takes away all that will ever be garbage.
    pub async fn much_later(&self) {
        self.keep().await;
        self.later(Duration::from_secs(86_400)).await;
    }

    /// How many objects are in the store, and rows in `blobs` and `contents`.
    pub async fn kept(&self) -> (usize, i64, i64) {
        let objects: Vec<_> = self.store.list().try_collect().await.expect("a list");
        (objects.len(), self.count("blobs").await, self.count("contents").await)
    }

    pub async fn count(&self, table: &str) -> i64 {
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) AS found FROM {table}"));
        let row = sqlx::query(statement).fetch_one(self.database.reader()).await.expect("a count");
        row.get("found")
    }

    /// Changes the tables behind the service's back.
    pub async fn tamper(&self, statement: &'static str) {
        let done = sqlx::query(statement).execute(self.database.writer()).await.expect("a change");
        assert!(done.rows_affected() > 0, "{statement} changed nothing");
    }

    pub async fn check(&self, options: Options) -> Vec<Finding> {
        let mut findings = Vec::new();
        let summary = Check::run(&self.service, options, &mut |finding| findings.push(finding.clone())).await;
        assert_eq!(summary.expect("a check").differences, findings.len() as u64);
        findings
    }

    /// Nothing is wrong, down to the last byte, and nothing is garbage.
    pub async fn assert_sound(&self) {
        let findings = self.check(Options { reads_content: true, ..Options::default() }).await;
        assert_eq!(findings, []);
        let (objects, blobs, _) = self.kept().await;
        assert_eq!(i64::try_from(objects), Ok(blobs), "as many objects as rows");
        assert_eq!(left_over(&self.blobs()), Vec::<PathBuf>::new());
    }

    /// Messages since the last time.
    pub async fn messages(&self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let rows = outbox::pending(&self.database, 1000).await.expect("rows");
            if rows.is_empty() {
                return all;
            }
            let mut transaction = self.database.begin().await.expect("a transaction");
            outbox::mark_published(&mut transaction, &rows, 1).await.expect("marks");
            self.database.commit(transaction).await.expect("a commit");
            all.extend(rows.into_iter().map(|row| row.message));
        }
    }

    /// The same as events, all of which follow from the request.
    pub async fn events(&self) -> Vec<AnyEvent> {
        let decode = |message: Message| {
            assert_eq!(message.correlation_id, "the request", "{}", message.subject);
            AnyEvent::decode(&message.subject, Encoding::Protobuf, &message.payload).expect("an event")
        };
        self.messages().await.into_iter().map(decode).collect()
    }

    /// What happened to files since the last time: `+path` and `-path`; others by their last word.
    pub async fn happenings(&self) -> Vec<String> {
        let told = |message: Message| {
            let event = AnyEvent::decode(&message.subject, Encoding::Protobuf, &message.payload).expect("an event");
            match event {
                AnyEvent::FileUploaded(event) => format!("+{}", event.path),
                AnyEvent::FileDeleted(event) => format!("-{}", event.path),
                _ => message.subject.rsplit('.').next().unwrap_or_default().to_owned(),
            }
        };
        self.messages().await.into_iter().map(told).collect()
    }
}

/// All bytes of an opened file.
pub async fn read(opened: &Opened) -> Vec<u8> {
    let bytes = opened.stream(0..opened.file.size).map(|piece| piece.expect("bytes"));
    bytes.collect::<Vec<_>>().await.concat()
}

/// Files beside the objects, as killed writers leave them.
fn left_over(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { left_over(&path) } else { vec![path] });
    files.filter(|path| path.to_string_lossy().contains('#')).collect()
}
