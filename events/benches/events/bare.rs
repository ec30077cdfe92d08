//! What the database and the bus can do when nobody asks for more: the least that events could cost.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::figures::{STEADY_PAUSE, Sizes, WRITERS};
use crate::nats::BareNats;
use crate::postgres::BarePostgres;
use crate::sqlite::BareSqlite;
use crate::stage::{Setup, Stage};

/// Rows of a large transaction, and messages that are handed over in one go: what relay and replay take.
pub const BATCH: usize = 256;
/// About what an event has, with all that is said about it.
pub const PAYLOAD: [u8; 300] = [b'x'; 300];

/// A table of numbers and bytes, behind the database's own driver.
#[async_trait]
pub trait BareDatabase: Debug + Send + Sync {
    /// One row, committed.
    async fn commit(&self);

    /// [`BATCH`] rows, written by one statement and committed together.
    async fn commit_batch(&self);
}

/// A log behind the bus's own client.
#[async_trait]
pub trait BareBus: Debug + Send + Sync {
    /// One message, acknowledged.
    async fn publish(&self);

    /// [`BATCH`] messages, acknowledged together.
    async fn publish_batch(&self);

    /// Up to [`BATCH`] messages that nobody had before, and answers them. How many.
    async fn take_batch(&self) -> usize;

    /// Up to [`BATCH`] messages after those of the last call. How many.
    async fn read_batch(&self) -> usize;
}

/// Per second, unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Rates {
    pub commits: f64,
    /// By several writers at once.
    pub commits_at_once: f64,
    /// Rows, a batch to a commit.
    pub rows: f64,
    pub publishes: f64,
    /// Messages, a batch to an acknowledgement.
    pub published_in_batches: f64,
    /// Messages, pulled and acknowledged.
    pub taken: f64,
    /// Messages, read without an answer.
    pub read: f64,
    /// A publish and then a commit, now and then; in ascending order.
    pub latency: Vec<Duration>,
}

impl Rates {
    pub async fn measure(stage: &Stage, sizes: &Sizes) -> Self {
        let (database, bus) = open(stage).await;
        let (database, bus, time) = (&database, &bus, sizes.bare);
        let commits = rate(time, 1, 1, database, |database| async move { database.commit().await }).await;
        let commits_at_once = rate(time, WRITERS, 1, database, |database| async move { database.commit().await }).await;
        let rows = rate(time, 1, BATCH, database, |database| async move { database.commit_batch().await }).await;
        let publishes = rate(time, 1, 1, bus, |bus| async move { bus.publish().await }).await;
        let published_in_batches = rate(time, 1, BATCH, bus, |bus| async move { bus.publish_batch().await }).await;
        let mut latency = Vec::with_capacity(sizes.latency_samples);
        for _ in 0..sizes.latency_samples {
            let started = Instant::now();
            bus.publish().await;
            database.commit().await;
            latency.push(started.elapsed());
            tokio::time::sleep(STEADY_PAUSE).await;
        }
        latency.sort_unstable();
        let taken = exhaust(|| bus.take_batch()).await;
        let read = exhaust(|| bus.read_batch()).await;
        Self { commits, commits_at_once, rows, publishes, published_in_batches, taken, read, latency }
    }
}

async fn open(stage: &Stage) -> (Arc<dyn BareDatabase>, Arc<dyn BareBus>) {
    match stage.setup {
        Setup::SqliteLocal => {
            let file = |name| stage.folder.path().join(name);
            (Arc::new(BareSqlite::open(&file("bare.db")).await), Arc::new(BareSqlite::open(&file("bare-bus.db")).await))
        }
        Setup::PostgresJetStream => {
            let url = stage.bare_url.as_ref().expect("a database of this setup");
            let nats = stage.nats.as_ref().expect("a server of this setup");
            (Arc::new(BarePostgres::open(url).await), Arc::new(BareNats::open(&nats.url()).await))
        }
    }
}

/// How often per second `act` is done by several at once, counted in what one does at a time.
async fn rate<S, F>(time: Duration, at_once: usize, each: usize, subject: &S, act: fn(S) -> F) -> f64
where
    S: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    // Connections, prepared statements.
    act(subject.clone()).await;
    let started = Instant::now();
    let actors = (0..at_once).map(|_| {
        let subject = subject.clone();
        tokio::spawn(async move {
            let mut acts = 0;
            while started.elapsed() < time {
                act(subject.clone()).await;
                acts += 1;
            }
            acts
        })
    });
    let acts: usize = join_all(actors).await.into_iter().map(|acts| acts.expect("an actor")).sum();
    (acts * each) as f64 / started.elapsed().as_secs_f64()
}

/// How many per second `batch` brings, until it brings no more.
async fn exhaust<F: Future<Output = usize>>(batch: impl Fn() -> F) -> f64 {
    let (started, mut all) = (Instant::now(), 0);
    loop {
        let ended = started.elapsed();
        match batch().await {
            0 => return all as f64 / ended.as_secs_f64(),
            count => all += count,
        }
    }
}
