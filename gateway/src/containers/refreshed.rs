//! `gateway.router.refreshed`: tells others that another table serves.

use std::time::Duration;

use edd_events::database::Database;
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::gateway::RouterRefreshed;
use tokio_util::sync::CancellationToken;

use crate::router::Router;

/// Changes that come together are told of together.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Publishes the event after changes of the table until told to stop. One that the database does not take is not made
/// up for: the next one says all that it would have.
pub async fn announce_refreshes(router: Router, database: Database, publisher: Publisher, stop: CancellationToken) {
    let mut changed = router.changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(DEBOUNCE) => {}
        }
        changed.mark_unchanged();
        if let Err(error) = announce(&router, &database, &publisher).await {
            tracing::warn!(%error, "nobody was told that the table changed");
        }
    }
}

async fn announce(router: &Router, database: &Database, publisher: &Publisher) -> Result<(), PublishError> {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let event = {
        let snapshot = router.snapshot();
        let routes = snapshot.table.len() + snapshot.ports.len();
        RouterRefreshed {
            container_count: count(snapshot.containers.len()),
            route_count: count(routes),
            ..RouterRefreshed::default()
        }
    };
    let mut transaction = database.begin().await?;
    publisher.add(&mut transaction, event, &Cause::default()).await?;
    Ok(database.commit(transaction).await?)
}
