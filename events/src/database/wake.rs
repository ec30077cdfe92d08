//! Wake-ups between processes on one PostgreSQL database.
//!
//! A NOTIFY inside the transaction would make PostgreSQL commit one such transaction at a time, each with a disk flush
//! of its own: with eight writers that leaves between a third and a tenth of the commits. So one task tells of many
//! commits, after them. What a crash leaves untold is found by polling.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ACQUIRE_TIMEOUT;

const CHANNEL: &str = "edd_outbox";
/// Commits that follow closer upon each other are told of together.
const TELL_EVERY: Duration = Duration::from_millis(10);
/// Pause before the next try to listen, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tells other processes of commits, and hears of theirs, until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Wake {
    tell: Arc<Notify>,
    stop: CancellationToken,
}

impl Wake {
    /// Listens at `url`, and tells through `pool`; `heard` is for who waits in this process.
    pub(super) async fn start(url: &str, pool: AnyPool, heard: Arc<Notify>) -> sqlx::Result<Self> {
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let own = own.idle_timeout(None).max_lifetime(None).connect_lazy(url)?;
        let listener = listen(&own).await?;
        let (tell, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        // Told apart from our own by this, whatever connection they take.
        let name = format!("{:016x}", rand::random::<u64>());
        tokio::spawn(stop.clone().run_until_cancelled_owned(hear(own, listener, name.clone(), heard)));
        tokio::spawn(stop.clone().run_until_cancelled_owned(spread(pool, name, tell.clone())));
        Ok(Self { tell, stop })
    }

    /// Has others told, soon.
    pub(super) fn tell(&self) {
        self.tell.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen(pool: &PgPool) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Wakes this process for what others commit.
async fn hear(pool: PgPool, listener: PgListener, own: String, heard: Arc<Notify>) {
    let (mut listener, mut pause) = (Ok(listener), FIRST_PAUSE);
    loop {
        let error = match listener {
            // Then its connection is never used again: it may be broken in a way that it does not notice.
            Ok(listener) => attend(listener, &own, &heard).await,
            Err(error) => error,
        };
        tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "commits of other processes go unheard");
        tokio::time::sleep(pause).await;
        listener = listen(&pool).await;
        if listener.is_ok() {
            pause = FIRST_PAUSE;
            // Something may have gone unheard meanwhile.
            heard.notify_waiters();
        } else {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Listens until that fails.
async fn attend(mut listener: PgListener, own: &str, heard: &Notify) -> sqlx::Error {
    loop {
        match listener.try_recv().await {
            Ok(Some(notification)) if notification.payload() == own => {}
            // Nothing to read means that it has connected anew, and did not hear meanwhile.
            Ok(_) => heard.notify_waiters(),
            Err(error) => return error,
        }
    }
}

/// Tells other processes that there is something to relay, unless our own relay was faster.
async fn spread(pool: AnyPool, own: String, tell: Arc<Notify>) {
    loop {
        tell.notified().await;
        let notify = "SELECT pg_notify($1, $2)::text WHERE EXISTS (SELECT FROM outbox WHERE published_at IS NULL)";
        if let Err(error) = sqlx::query(notify).bind(CHANNEL).bind(&own).execute(&pool).await {
            tracing::warn!(%error, "other processes are not told of a commit");
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}
