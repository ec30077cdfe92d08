//! The routes file on its way into the table: read at the start, when it changes and when asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::gateway::StartError;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::publish::{PublishError, Publisher};
use crate::route::{Route, Source};
use crate::sources::file::{self, LoadError};
use crate::sources::watch::RoutesWatcher;

/// How often the file is read again on file systems that report no changes.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Loads the routes file into the table, at the start and whenever it changes.
pub struct Reloader {
    path: PathBuf,
    publisher: Publisher,
    health: Health,
    metrics: Arc<Metrics>,
    asked: Notify,
}

impl Reloader {
    pub fn new(path: PathBuf, publisher: Publisher, health: Health, metrics: Arc<Metrics>) -> Self {
        Self { path, publisher, health, metrics, asked: Notify::new() }
    }

    /// Publishes what the file says, and returns it.
    pub async fn first_load(&self) -> Result<String, StartError> {
        let text = file::read(&self.path)?;
        let parsed = file::parse(&text, &self.origin()).map_err(LoadError::Invalid)?;
        for warning in &parsed.warnings {
            tracing::warn!("{warning}");
        }
        self.publish(parsed.routes).await?;
        Ok(text)
    }

    /// Asks for the file to be read again, changed or not.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// Follows the file. What it says is taken by this task alone, so the last state wins.
    pub async fn watch(self: Arc<Self>, mut served: String) {
        loop {
            let mut watcher = match RoutesWatcher::new(&self.path, &served, POLL_INTERVAL) {
                Ok(watcher) => Some(watcher),
                Err(error) => {
                    tracing::error!(%error, "the routes file is not watched; send SIGHUP after a change");
                    None
                }
            };
            loop {
                let changed = async {
                    match &mut watcher {
                        Some(watcher) => watcher.changed().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.asked.notified() => break,
                    text = changed => match text {
                        Ok(text) => self.take(&text).await,
                        Err(error) => self.reject(error.to_string()),
                    },
                }
            }
            match file::read(&self.path) {
                Ok(text) => {
                    self.take(&text).await;
                    served = text;
                }
                Err(error) => self.reject(error.to_string()),
            }
        }
    }

    async fn take(&self, text: &str) {
        match file::parse(text, &self.origin()) {
            Err(diagnostics) => {
                let all: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                self.reject(all.join("\n"));
            }
            Ok(parsed) => {
                for warning in &parsed.warnings {
                    tracing::warn!("{warning}");
                }
                if let Err(error) = self.publish(parsed.routes).await {
                    self.reject(error.to_string());
                }
            }
        }
    }

    fn reject(&self, error: String) {
        tracing::error!(file = %self.path.display(), "the routes were not taken, the last good ones serve on\n{error}");
        self.metrics.reloads.with_label_values(&["failure"]).inc();
        self.metrics.reload_successful.set(0);
        self.health.routes_rejected(error);
    }

    async fn publish(&self, routes: Vec<Route>) -> Result<(), PublishError> {
        let count = routes.len();
        let revision = self.publisher.publish(Source::File, routes).await?;
        self.metrics.reloads.with_label_values(&["success"]).inc();
        self.metrics.reload_successful.set(1);
        self.health.routes_loaded(&self.origin(), revision, count);
        tracing::info!(revision, routes = count, file = %self.path.display(), "routes published");
        Ok(())
    }

    fn origin(&self) -> String {
        self.path.display().to_string()
    }
}
