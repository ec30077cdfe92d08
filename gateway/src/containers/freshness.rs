//! How new what is known of the containers is: what `/readyz?verbose` says of it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edd_events::clock::{Clock, Micros};

use crate::clock::rfc3339;
use crate::containers::Containers;
use crate::containers::metrics::Metrics;
use crate::health::{Check, CheckState, Reporter};

/// The stream is looked at every few seconds; what was not for longer is told.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// Cheap handle on how new the containers are.
#[derive(Clone, Debug)]
pub struct Freshness {
    state: Arc<ArcSwap<State>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// When all was there that compute had told by then; none: never, as far as is known.
    as_of: Option<Micros>,
    /// Events may be missing until all is read again.
    has_gap: bool,
    /// What keeps it from being newer.
    failure: Option<String>,
}

impl Freshness {
    pub(super) fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { state: Arc::default(), metrics, clock }
    }

    /// All was there at `as_of`.
    pub(super) fn known_as_of(&self, as_of: Micros) {
        self.change(|state| state.as_of = Some(state.as_of.unwrap_or(as_of).max(as_of)));
        self.metrics.as_of.set(as_of / 1_000_000);
    }

    /// All that the stream has was heard.
    pub(super) fn caught_up(&self) {
        if !self.state.load().has_gap {
            self.known_as_of(self.clock.now());
        }
    }

    /// Events may be missing from now on.
    pub(super) fn lost_events(&self) {
        self.change(|state| state.has_gap = true);
    }

    /// Everything was read again.
    pub(super) fn reloaded(&self) {
        self.change(|state| state.has_gap = false);
    }

    /// The database can be read.
    pub(super) fn recovered(&self) {
        if self.state.load().failure.is_some() {
            self.change(|state| state.failure = None);
        }
    }

    pub(super) fn failed(&self, failure: String) {
        self.change(|state| state.failure = Some(failure.clone()));
    }

    fn change(&self, change: impl Fn(&mut State)) {
        self.state.rcu(|state| {
            let mut state = State::clone(state);
            change(&mut state);
            state
        });
    }

    /// When all was there that compute had told by then; none: never, as far as is known.
    pub fn as_of(&self) -> Option<Micros> {
        self.state.load().as_of
    }

    /// For how long nothing new can have become known; none: nothing ever was.
    pub fn age(&self) -> Option<Duration> {
        let as_of = self.as_of()?;
        Some(Duration::from_micros(self.clock.now().saturating_sub(as_of).max(0).unsigned_abs()))
    }
}

impl Reporter for Containers {
    fn checks(&self) -> Vec<Check> {
        let freshness = self.freshness();
        let (state, snapshot) = (freshness.state.load(), self.router().snapshot());
        let known = format!("{} containers, {} ports", snapshot.containers.len(), snapshot.ports.len());
        let because = match (&state.failure, state.has_gap) {
            (Some(failure), _) => format!("; {failure}"),
            (None, true) => "; events may be missing until all is read again".to_owned(),
            (None, false) => String::new(),
        };
        let (state, detail) = match (state.as_of, freshness.age()) {
            (Some(as_of), Some(age)) => {
                let old = if age > STALE_AFTER { format!(", {} s ago", age.as_secs()) } else { String::new() };
                let is_well = old.is_empty() && because.is_empty();
                let state = if is_well { CheckState::Ok } else { CheckState::Degraded };
                (state, format!("{known}, as compute told by {}{old}{because}", rfc3339(as_of)))
            }
            _ => (CheckState::Degraded, format!("{known}; compute has not told yet which there are{because}")),
        };
        vec![Check { name: "containers".into(), state, detail }]
    }
}
