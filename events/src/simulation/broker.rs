//! A broker in memory: what the simulated bus keeps, and how it loses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edd_proto::{Consumer, Stream, covers};
use tokio::sync::{Notify, mpsc};

use super::world::lock;
use crate::bus::{
    ACK_WAIT, Answer, BusError, ConsumerState, Delivery, MAX_ACK_PENDING, Position, Question, StreamState,
};
use crate::clock::{Clock, Micros, micros};
use crate::message::Message;

#[derive(Clone, Debug)]
struct Kept {
    message: Message,
    stored_at: Micros,
}

#[derive(Clone, Debug)]
struct Log {
    spec: Stream,
    epoch: i64,
    first_seq: u64,
    last_seq: u64,
    kept: BTreeMap<u64, Kept>,
    /// Where an event is that is kept; the last place if there are several.
    places: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    delivered: u64,
    since: Micros,
    wait: Duration,
}

#[derive(Clone, Debug)]
struct Progress {
    filters: &'static [&'static str],
    /// Everything up to here does not match, is answered or is in flight.
    scanned: u64,
    in_flight: BTreeMap<u64, InFlight>,
}

#[derive(Clone, Debug, Default)]
struct Data {
    logs: BTreeMap<&'static str, Log>,
    consumers: BTreeMap<(&'static str, &'static str), Progress>,
}

#[derive(Debug)]
pub(super) struct Broker {
    clock: Arc<dyn Clock>,
    /// How long it remembers the id of what was published.
    window: Duration,
    data: Mutex<Data>,
    backup: Mutex<Data>,
    /// No two streams ever have the same.
    last_epoch: Mutex<i64>,
    /// Events that retention has taken, whoever may have had them.
    expired: Mutex<BTreeSet<String>>,
    pub services: Mutex<BTreeMap<String, mpsc::Sender<Question>>>,
    pub changed: Notify,
}

fn no_stream(stream: &str) -> BusError {
    BusError::Refused(format!("there is no stream {stream}"))
}

fn key(consumer: &Consumer) -> (&'static str, &'static str) {
    (consumer.stream.name, consumer.name)
}

impl InFlight {
    fn new(delivered: u64, since: Micros) -> Self {
        Self { delivered, since, wait: ACK_WAIT }
    }

    /// In microseconds. A clock that is set back makes nobody wait for it to come to where it was.
    fn left(&self, now: Micros) -> Micros {
        if now < self.since { 0 } else { (micros(self.wait) - (now - self.since)).max(0) }
    }
}

impl Log {
    fn new(spec: Stream, epoch: i64) -> Self {
        Self { spec, epoch, first_seq: 1, last_seq: 0, kept: BTreeMap::new(), places: BTreeMap::new() }
    }

    fn put(&mut self, message: &Message, window: Duration, now: Micros) -> u64 {
        if let Some(seq) = self.places.get(&message.event_id)
            && now - self.kept[seq].stored_at <= micros(window)
            && !window.is_zero()
        {
            return *seq;
        }
        self.last_seq += 1;
        self.kept.insert(self.last_seq, Kept { message: message.clone(), stored_at: now });
        self.places.insert(message.event_id.clone(), self.last_seq);
        self.last_seq
    }

    fn remove(&mut self, seq: u64) -> Option<String> {
        let event_id = self.kept.remove(&seq)?.message.event_id;
        if self.places.get(&event_id) == Some(&seq) {
            self.places.remove(&event_id);
        }
        Some(event_id)
    }
}

impl Data {
    fn log(&mut self, stream: &str) -> Result<&mut Log, BusError> {
        self.logs.get_mut(stream).ok_or_else(|| no_stream(stream))
    }

    fn progress(&mut self, consumer: &Consumer) -> Result<&mut Progress, BusError> {
        let unknown =
            || BusError::Refused(format!("there is no consumer {} on {}", consumer.name, consumer.stream.name));
        self.consumers.get_mut(&key(consumer)).ok_or_else(unknown)
    }
}

impl Broker {
    pub fn new(clock: Arc<dyn Clock>, window: Duration) -> Arc<Self> {
        let (data, backup, expired) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (last_epoch, services, changed) = (Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(Self { clock, window, data, backup, last_epoch, expired, services, changed })
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        lock(&self.data)
    }

    pub fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        let mut data = self.data();
        for spec in streams {
            let mut last = lock(&self.last_epoch);
            let epoch = self.clock.now().max(*last + 1);
            let log = data.logs.entry(spec.name).or_insert_with(|| {
                *last = epoch;
                Log::new(*spec, epoch)
            });
            log.spec = *spec;
        }
        for spec in consumers {
            data.log(spec.stream.name)?;
            let new = Progress { filters: spec.filters, scanned: 0, in_flight: BTreeMap::new() };
            data.consumers.entry(key(spec)).or_insert(new).filters = spec.filters;
        }
        Ok(())
    }

    pub fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        let (mut data, now) = (self.data(), self.clock.now());
        let mut positions = Vec::new();
        for message in messages {
            let takes = |log: &&mut Log| log.spec.subjects.iter().any(|subject| covers(subject, &message.subject));
            let Some(log) = data.logs.values_mut().find(takes) else {
                return (positions, Some(BusError::Refused(format!("no stream keeps {}", message.subject))));
            };
            let oldest = now - micros(log.spec.retention());
            let expired = log.kept.iter().rev().find(|(_, kept)| kept.stored_at < oldest).map(|(seq, _)| *seq);
            self.drop_oldest(log, expired.unwrap_or_default());
            let seq = log.put(message, self.window, now);
            positions.push(Position { stream: log.spec.name, seq });
        }
        drop(data);
        self.changed.notify_waiters();
        (positions, None)
    }

    pub fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        let mut data = self.data();
        let log = data.log(stream)?;
        Ok(StreamState { epoch: log.epoch, first_seq: log.first_seq, last_seq: log.last_seq })
    }

    pub fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        let mut data = self.data();
        let progress = data.progress(consumer)?.clone();
        let rest = data.log(consumer.stream.name)?.kept.range(progress.scanned + 1..);
        let waiting = rest.filter(|(_, kept)| progress.wants(&kept.message)).count() as u64;
        let ack_floor = progress.in_flight.first_key_value().map_or(progress.scanned, |(seq, _)| seq - 1);
        Ok(ConsumerState { ack_floor, waiting, unanswered: progress.in_flight.len() as u64 })
    }

    pub fn pull(&self, consumer: &Consumer, most: usize) -> Result<Vec<Delivery>, BusError> {
        let (mut data, now) = (self.data(), self.clock.now());
        let mut progress = data.progress(consumer)?.clone();
        let log = data.log(consumer.stream.name)?;
        // Retention takes what is in flight as well.
        progress.in_flight.retain(|seq, _| log.kept.contains_key(seq));
        let mut deliveries = Vec::new();
        for (seq, flight) in progress.in_flight.iter_mut().filter(|(_, flight)| flight.left(now) == 0).take(most) {
            *flight = InFlight::new(flight.delivered + 1, now);
            deliveries.push(log.delivery(*seq, flight.delivered));
        }
        for (seq, kept) in log.kept.range(progress.scanned + 1..) {
            if deliveries.len() == most || progress.in_flight.len() == MAX_ACK_PENDING {
                break;
            }
            progress.scanned = *seq;
            if progress.wants(&kept.message) {
                progress.in_flight.insert(*seq, InFlight::new(1, now));
                deliveries.push(log.delivery(*seq, 1));
            }
        }
        data.consumers.insert(key(consumer), progress);
        Ok(deliveries)
    }

    /// When the next delivery of `consumer` is due again.
    pub fn next_due(&self, consumer: &Consumer) -> Option<Duration> {
        let (mut data, now) = (self.data(), self.clock.now());
        let left = data.progress(consumer).ok()?.in_flight.values().map(|flight| flight.left(now)).min()?;
        Some(Duration::from_micros(left as u64))
    }

    pub fn answer(&self, consumer: &Consumer, seq: u64, answer: Answer) -> Result<(), BusError> {
        let (mut data, now) = (self.data(), self.clock.now());
        let progress = data.progress(consumer)?;
        // As JetStream: whatever delivery of it is meant, and nothing for one that is answered.
        let Some(flight) = progress.in_flight.get_mut(&seq) else { return Ok(()) };
        match answer {
            Answer::Later(wait) => (flight.since, flight.wait) = (now, wait),
            Answer::InProgress => (flight.since, flight.wait) = (now, ACK_WAIT),
            Answer::Ack | Answer::Terminate => drop(progress.in_flight.remove(&seq)),
        }
        drop(data);
        self.changed.notify_waiters();
        Ok(())
    }

    pub fn read(&self, stream: &str, seq: u64, filters: &[&str], most: usize) -> Result<Vec<(u64, Message)>, BusError> {
        let mut data = self.data();
        let rest = data.log(stream)?.kept.range(seq..);
        let wanted = rest.filter(|(_, kept)| filters.iter().any(|filter| covers(filter, &kept.message.subject)));
        Ok(wanted.take(most).map(|(seq, kept)| (*seq, kept.message.clone())).collect())
    }

    /// Everything that is unanswered is due, as if the wait for it were over.
    pub fn lose_patience(&self, consumer: &Consumer) {
        if let Ok(progress) = self.data().progress(consumer) {
            progress.in_flight.values_mut().for_each(|flight| flight.wait = Duration::ZERO);
        }
    }

    /// Removes `stream` with its consumers, or all of them.
    pub fn lose(&self, stream: Option<&str>) {
        let mut data = self.data();
        data.logs.retain(|name, _| stream.is_some_and(|lost| lost != *name));
        data.consumers.retain(|(name, _), _| stream.is_some_and(|lost| lost != *name));
    }

    /// Removes the last `count` messages of `stream`, as if they had never come.
    pub fn lose_tail(&self, stream: &str, count: u64) {
        let mut data = self.data();
        let Ok(log) = data.log(stream) else { return };
        let last = log.last_seq.saturating_sub(count).max(log.first_seq - 1);
        for seq in last + 1..=log.last_seq {
            log.remove(seq);
        }
        log.last_seq = last;
        for (_, progress) in data.consumers.iter_mut().filter(|((name, _), _)| *name == stream) {
            progress.scanned = progress.scanned.min(last);
            progress.in_flight.retain(|seq, _| *seq <= last);
        }
    }

    pub fn back_up(&self) {
        *lock(&self.backup) = self.data().clone();
    }

    pub fn restore(&self) {
        let backup = lock(&self.backup).clone();
        *self.data() = backup;
    }

    /// Has retention take the oldest `count` messages of `stream`.
    pub fn expire(&self, stream: &str, count: u64) {
        let mut data = self.data();
        let Ok(log) = data.log(stream) else { return };
        let upto = (log.first_seq + count).min(log.last_seq + 1) - 1;
        self.drop_oldest(log, upto);
    }

    fn drop_oldest(&self, log: &mut Log, upto: u64) {
        for seq in log.first_seq..=upto {
            if let Some(event_id) = log.remove(seq) {
                lock(&self.expired).insert(event_id);
            }
        }
        log.first_seq = log.first_seq.max(upto + 1);
    }

    pub fn has_expired(&self, event_id: &str) -> bool {
        lock(&self.expired).contains(event_id)
    }
}

impl Log {
    fn delivery(&self, seq: u64, delivered: u64) -> Delivery {
        Delivery { message: self.kept[&seq].message.clone(), seq, delivered, token: String::new() }
    }
}

impl Progress {
    fn wants(&self, message: &Message) -> bool {
        self.filters.iter().any(|filter| covers(filter, &message.subject))
    }
}
