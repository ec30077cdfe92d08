//! What happens to containers without being told to.

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::EventsOptionsBuilder;
use edd_proto::ContainerId;
use futures_util::StreamExt;
use tokio::sync::broadcast;

use super::container;

/// Pause before the engine's events are asked for again.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// Tells of what happens to our containers, until nobody has the platform any more.
pub(super) async fn follow(docker: Docker, installation: Arc<str>, changes: broadcast::WeakSender<ContainerId>) {
    loop {
        let mut filters = container::filter(None, &installation);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = Box::pin(docker.events(Some(options)));
        while let Some(Ok(event)) = events.next().await {
            let Some(changes) = changes.upgrade() else { return };
            let labels = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            let ends = matches!(event.action.as_deref(), Some("die" | "oom" | "destroy" | "stop"));
            if let Some(id) = container::id_of(&labels).filter(|_| ends) {
                // Nobody may be watching.
                let _ = changes.send(id);
            }
        }
        if changes.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}
