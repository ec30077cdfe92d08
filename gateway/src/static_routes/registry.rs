//! Takes routes in and out, and keeps the table up with what the database has.

use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_events::publisher::{Cause, PublishError as EventError, Publisher as Events};
use edd_proto::gateway::{RouteRegistered, RouteUnregistered};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::store::{self, Kept, StoreError};
use crate::publish::{self, PublishError, Publisher};
use crate::route::{HostPattern, PathPrefix, Route, Source};
use crate::sources::{self, Diagnostic};

/// Routes that may be kept.
const MAX_ROUTES: u32 = 10_000;
/// Commits wake whoever follows; this only bounds how long a lost wake-up lasts.
const POLL: Duration = Duration::from_secs(2);
/// What diagnostics call the text that they are about.
const ORIGIN: &str = "route";

/// The routes by API of one gateway. Clones share them.
#[derive(Clone)]
pub struct StaticRoutes {
    database: Database,
    events: Events,
    clock: Arc<dyn Clock>,
    table: Publisher,
    /// What of the database is in the table; none: it was not read yet.
    served: Arc<Mutex<Option<Vec<Kept>>>>,
}

/// A route that was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registered {
    pub route_id: i64,
    /// As lists, logs and metrics name it.
    pub route: String,
    pub host: String,
    pub path: String,
    pub action: String,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RouteApiError {
    /// It is no route; the text says what is wrong and where.
    #[error("{0}")]
    Invalid(String),
    #[error("the gateway keeps no route by API for {host}{path}; `edd routes list` shows where each comes from")]
    Unknown { host: String, path: String },
    #[error("the gateway keeps {MAX_ROUTES} routes by API and no more; remove some")]
    Full,
    #[error("the database: {0}")]
    Database(#[from] StoreError),
    #[error("the route's event: {0}")]
    Event(#[from] EventError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl StaticRoutes {
    pub fn new(database: Database, events: Events, clock: Arc<dyn Clock>, table: Publisher) -> Self {
        Self { database, events, clock, table, served: Arc::default() }
    }

    /// Takes in `form`, an entry of routes.yaml in JSON, in the place of one with the same host and path, and serves it.
    ///
    /// # Errors
    /// It is wrong, cannot go live, or cannot be kept; nothing changes then.
    pub async fn add(&self, form: &Value) -> Result<Registered, RouteApiError> {
        let form = form.to_string();
        let route = parse(&form)?;
        publish::rehearse(std::slice::from_ref(&route)).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            RouteApiError::Invalid(errors.join("\n"))
        })?;
        let (host, path, action) = (route.host.to_string(), route.path.to_string(), route.describe_action());
        let mut transaction = self.database.begin().await?;
        let route_id = store::put(&mut transaction, (&host, &path), &form, self.clock.now()).await?;
        if store::count(&mut transaction).await? > i64::from(MAX_ROUTES) {
            return Err(RouteApiError::Full);
        }
        let registered = RouteRegistered {
            metadata: None,
            route_id,
            host: host.clone(),
            path_prefix: path.clone(),
            target: action.clone(),
            strip_prefix: route.strip_prefix,
        };
        self.events.add(&mut transaction, registered, &Cause::default()).await?;
        self.database.commit(transaction).await?;
        tracing::info!(route_id, host, path, action, "route registered");
        self.refresh().await?;
        Ok(Registered { route_id, route: route.id.to_string(), host, path, action })
    }

    /// Takes the route of a host and a path out.
    ///
    /// # Errors
    /// There is none, or the database fails; nothing changes then.
    pub async fn remove(&self, host: &str, path: &str) -> Result<(), RouteApiError> {
        let invalid = |error: crate::route::RouteError| RouteApiError::Invalid(error.to_string());
        let host = HostPattern::parse(host).map_err(invalid)?.to_string();
        let path = PathPrefix::parse(path).map_err(invalid)?.to_string();
        let mut transaction = self.database.begin().await?;
        let Some(route_id) = store::remove(&mut transaction, (&host, &path)).await? else {
            transaction.rollback().await?;
            return Err(RouteApiError::Unknown { host, path });
        };
        tracing::info!(route_id, host, path, "route unregistered");
        let unregistered = RouteUnregistered { metadata: None, route_id, host, path_prefix: path };
        self.events.add(&mut transaction, unregistered, &Cause::default()).await?;
        self.database.commit(transaction).await?;
        self.refresh().await
    }

    /// Serves what the database has, if it is not served already.
    async fn refresh(&self) -> Result<(), RouteApiError> {
        // Held over the reading: what was read first must not be published last.
        let mut served = self.served.lock().await;
        let kept = store::all(&self.database, MAX_ROUTES).await?;
        if served.as_ref() == Some(&kept) {
            return Ok(());
        }
        let mut routes = Vec::with_capacity(kept.len());
        for route in &kept {
            match parse(&route.form) {
                Ok(parsed) => routes.push(parsed),
                // Another release took it in.
                Err(error) => tracing::error!(route_id = route.route_id, %error, "a route by API is not served"),
            }
        }
        if publish::rehearse(&routes).is_err() {
            // The files that they name may be gone since. The others serve on.
            routes.retain(|route| match publish::rehearse(std::slice::from_ref(route)) {
                Ok(()) => true,
                Err(errors) => {
                    tracing::error!(route = %route.id, ?errors, "a route by API is not served");
                    false
                }
            });
        }
        self.table.publish(Source::Api, routes).await?;
        *served = Some(kept);
        Ok(())
    }

    /// Keeps the table up with the database until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Registered before the routes are read, so that no commit falls between.
            let committed = self.database.committed();
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "routes by API cannot be read; those that are known serve on");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // Whether anybody committed or not, it is time to look.
                _ = tokio::time::timeout(POLL, committed) => {}
            }
        }
    }
}

/// Reads an entry of routes.yaml.
fn parse(form: &str) -> Result<Route, RouteApiError> {
    // JSON is YAML: what holds in the file holds here, errors and all.
    let parsed = sources::parse(&format!("{{\"routes\": [{form}]}}"), ORIGIN).map_err(|diagnostics| {
        let all: Vec<String> = diagnostics.iter().map(in_words).collect();
        RouteApiError::Invalid(all.join("; "))
    })?;
    let mut routes = parsed.routes;
    match (routes.pop(), routes.is_empty()) {
        (Some(route), true) => Ok(Route { source: Source::Api, ..route }),
        _ => Err(RouteApiError::Invalid("one route is expected".to_owned())),
    }
}

fn in_words(found: &Diagnostic) -> String {
    match &found.hint {
        Some(hint) => format!("{}: {hint}", found.message),
        None => found.message.clone(),
    }
}

impl std::fmt::Debug for StaticRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticRoutes").field("database", &self.database).finish_non_exhaustive()
    }
}
