//! What every service does with its events while it runs: relay, consumers, housekeeping and figures, under one switch.

mod housekeeping;

use std::sync::Arc;
use std::time::Duration;

use edd_proto::{Consumer as Spec, Stream};
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::housekeeping::Housekeeping;
use crate::bus::{Bus, BusError};
use crate::clock::Clock;
use crate::consumer::{Consumer, Handler};
use crate::database::Database;
use crate::metrics::Metrics;
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::{dead_letter, outbox};

/// Between two looks at how things are; shorter while the bus is away.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest that one look may take.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// Longest wait for what has begun when a service stops; what takes longer is rolled back and comes again.
const LONGEST_STOP: Duration = Duration::from_secs(10);

/// A service's place among the others: its database and the bus.
#[derive(Clone, Debug)]
pub struct Service {
    /// As in its metrics and in its database's file: `auth`.
    pub name: &'static str,
    pub database: Database,
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub publisher: Publisher,
}

/// How a service's events fare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why the bus cannot be used; none if it can. Writes succeed either way, and their events wait.
    pub bus_error: Option<String>,
    /// Events that wait for the bus, and how long the oldest has.
    pub outbox_pending: u64,
    pub outbox_oldest: Duration,
    pub consumers: Vec<ConsumerHealth>,
}

/// How one consumer fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerHealth {
    pub stream: &'static str,
    pub consumer: &'static str,
    /// Events that it has not answered yet; none while the bus does not tell.
    pub lag: Option<u64>,
    /// Events that it gave up on and nobody has decided about.
    pub dead_letters: u64,
}

/// A service that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    health: watch::Receiver<Health>,
    metrics: Metrics,
    registry: Registry,
}

impl Service {
    /// Starts to publish what is in the outbox, to `streams`, and to hand `consumers` their events. Neither the bus nor
    /// its streams need be there yet.
    ///
    /// # Errors
    /// `registry` has metrics of this service already.
    pub fn start(
        &self,
        consumers: Vec<(Spec, Arc<dyn Handler>)>,
        streams: &[Stream],
        registry: &Registry,
    ) -> prometheus::Result<Running> {
        let specs: Vec<Spec> = consumers.iter().map(|(spec, _)| *spec).collect();
        let metrics = Metrics::register(self.name, &specs, registry)?;
        let mut own = streams.to_vec();
        if !consumers.is_empty() {
            own.push(Stream::DLQ);
        }
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (connected, is_connected) = watch::channel(false);
        let relay = Relay::new(self.database.clone(), self.bus.clone(), self.clock.clone(), own.clone());
        let relay = relay.with_metrics(metrics.clone()).run(stop.clone());
        tasks.spawn(once_connected(is_connected.clone(), stop.clone(), relay));
        let housekeeping = Housekeeping::new(self.database.clone(), self.clock.clone(), own.clone(), &specs);
        tasks.spawn(housekeeping.run(stop.clone()));
        for (spec, handler) in consumers {
            let (database, bus, clock) = (self.database.clone(), self.bus.clone(), self.clock.clone());
            let consumer = Consumer::new(spec, database, bus, clock, handler).with_metrics(metrics.clone());
            tasks.spawn(once_connected(is_connected.clone(), stop.clone(), consumer.run(stop.clone())));
        }
        let watcher = Watcher::new(self.clone(), own, specs, metrics.clone());
        let (told, health) = watch::channel(watcher.unknown());
        tasks.spawn(watcher.run(connected, told, stop.clone()));
        Ok(Running { stop, tasks, health, metrics, registry: registry.clone() })
    }
}

/// Begins `task` when the streams and consumers have been there for the first time.
async fn once_connected(mut connected: watch::Receiver<bool>, stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => return,
        _ = connected.wait_for(|connected| *connected) => {}
    }
    task.await;
}

impl Running {
    /// Runs another task until it ends; it is to end when the token that it is given is cancelled.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(CancellationToken) -> F) {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// How it is, as of the last look.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// How it is, look by look.
    pub fn watch(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Ends: what has begun is finished, what takes too long is rolled back.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LONGEST_STOP, ended).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "a service's tasks did not end in time and are cut off");
            self.tasks.shutdown().await;
        }
        self.metrics.unregister(&self.registry);
    }
}

/// Sees to it that streams and consumers are there, also after the broker has lost them, and tells how things are.
#[derive(Debug)]
struct Watcher {
    service: Service,
    streams: Vec<Stream>,
    consumers: Vec<Spec>,
    metrics: Metrics,
}

impl Watcher {
    /// `own` streams and those that are read.
    fn new(service: Service, own: Vec<Stream>, consumers: Vec<Spec>, metrics: Metrics) -> Self {
        let mut streams = own;
        for consumer in &consumers {
            if !streams.iter().any(|stream| stream.name == consumer.stream.name) {
                streams.push(consumer.stream);
            }
        }
        Self { service, streams, consumers, metrics }
    }

    fn unknown(&self) -> Health {
        let consumers = self.consumers.iter().map(|spec| ConsumerHealth {
            stream: spec.stream.name,
            consumer: spec.name,
            lag: None,
            dead_letters: 0,
        });
        let bus_error = Some("the bus has not answered yet".to_owned());
        Health { bus_error, outbox_pending: 0, outbox_oldest: Duration::ZERO, consumers: consumers.collect() }
    }

    async fn run(self, connected: watch::Sender<bool>, told: watch::Sender<Health>, stop: CancellationToken) {
        loop {
            let mut health = told.borrow().clone();
            let look = tokio::time::timeout(LONGEST_LOOK, self.look(&mut health));
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = look => looked,
            };
            if looked.is_err() {
                health.bus_error = Some(format!("no answer within {} s", LONGEST_LOOK.as_secs()));
            }
            connected
                .send_if_modified(|connected| !std::mem::replace(connected, *connected || health.bus_error.is_none()));
            self.tell_change(&told.borrow(), &health);
            let pause = if health.bus_error.is_none() { LOOK_EVERY } else { LOOK_AGAIN };
            told.send_replace(health);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell_change(&self, before: &Health, after: &Health) {
        let service = self.service.name;
        match (&before.bus_error, &after.bus_error) {
            (Some(_), None) => tracing::info!(service, "the bus is there"),
            (before, Some(error)) if before.as_ref() != Some(error) => {
                tracing::warn!(service, error, "the bus cannot be used; events wait in the outbox");
            }
            _ => {}
        }
    }

    async fn look(&self, health: &mut Health) {
        match outbox::backlog(&self.service.database).await {
            Ok((pending, oldest)) => {
                let age = oldest.map_or(0, |oldest| self.service.clock.now() - oldest);
                health.outbox_oldest = Duration::from_micros(u64::try_from(age).unwrap_or_default());
                health.outbox_pending = u64::try_from(pending).unwrap_or_default();
                self.metrics.set_outbox(pending, health.outbox_oldest);
            }
            Err(error) => tracing::warn!(service = self.service.name, %error, "the outbox cannot be counted"),
        }
        for (spec, consumer) in self.consumers.iter().zip(&mut health.consumers) {
            match dead_letter::count(&self.service.database, spec.name).await {
                Ok(letters) => {
                    self.metrics.set_dead_letters(spec, letters);
                    consumer.dead_letters = u64::try_from(letters).unwrap_or_default();
                }
                Err(error) => tracing::warn!(consumer = spec.name, %error, "dead letters cannot be counted"),
            }
        }
        health.bus_error = self.look_at_bus(&mut health.consumers).await.err().map(|error| error.to_string());
    }

    async fn look_at_bus(&self, consumers: &mut [ConsumerHealth]) -> Result<(), BusError> {
        consumers.iter_mut().for_each(|consumer| consumer.lag = None);
        self.service.bus.ensure(&self.streams, &self.consumers).await?;
        for (spec, consumer) in self.consumers.iter().zip(consumers) {
            let state = self.service.bus.consumer(spec).await?;
            let lag = state.waiting + state.unanswered;
            consumer.lag = Some(lag);
            self.metrics.set_lag(spec, lag);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
