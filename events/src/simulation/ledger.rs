//! What is true whatever the services believe: which events were committed, and who was handed which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use edd_proto::Consumer;

use super::world::lock;
use crate::clock::{Micros, micros};

/// Counts the lives of a process: each ends with its death.
pub(super) type Life = u32;

/// A durable consumer's name: its service's and its stream's.
pub(super) type Durable = (&'static str, &'static str);

pub(super) fn durable(consumer: &Consumer) -> Durable {
    (consumer.name, consumer.stream.name)
}

/// An event as its owner committed it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub stream: &'static str,
    pub entity: String,
    pub version: i64,
    pub created_at: Micros,
    /// Whether it was older than its stream keeps events at any time since.
    pub is_old: bool,
}

/// How a handler fares with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Fails(u32),
    /// What it depends on is away this many times.
    Waits(u32),
    Poisoned,
    Fine,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: Mutex<BTreeMap<String, Event>>,
    /// First hand-overs, in their order, after what waited in the database when the life began.
    handed: Mutex<BTreeMap<(Durable, Life), Vec<String>>>,
    scripts: Mutex<BTreeMap<(Durable, String), Script>>,
    /// Those whose script is one to die of.
    deadly: Mutex<BTreeSet<(Durable, String)>>,
}

impl Ledger {
    pub fn commit(&self, event_id: String, event: Event) {
        lock(&self.events).insert(event_id, event);
    }

    pub fn has(&self, event_id: &str) -> bool {
        lock(&self.events).contains_key(event_id)
    }

    /// Everything that was committed, by id.
    pub fn events(&self) -> BTreeMap<String, Event> {
        lock(&self.events).clone()
    }

    /// Notes what is too old to be published again, as the clock tells it now.
    pub fn grow_old(&self, now: Micros, retention: std::time::Duration) {
        for event in lock(&self.events).values_mut() {
            event.is_old |= now - event.created_at >= micros(retention);
        }
    }

    pub fn hand_over(&self, consumer: &Consumer, life: Life, event_id: &str) {
        let mut handed = lock(&self.handed);
        let handed = handed.entry((durable(consumer), life)).or_default();
        if !handed.iter().any(|known| known == event_id) {
            handed.push(event_id.to_owned());
        }
    }

    /// Whether the consumer was handed `first` before `second` in that life.
    pub fn was_handed_before(&self, consumer: Durable, life: Life, first: &str, second: &str) -> bool {
        let handed = lock(&self.handed);
        let Some(handed) = handed.get(&(consumer, life)) else { return false };
        let place = |event_id| handed.iter().position(|known| known == event_id);
        matches!((place(first), place(second)), (Some(first), Some(second)) if first < second)
    }

    /// What becomes of this try of an event; `draw` says it for the first.
    pub fn script(&self, consumer: Durable, event_id: &str, draw: impl FnOnce() -> Script) -> Script {
        let mut scripts = lock(&self.scripts);
        let script = scripts.entry((consumer, event_id.to_owned())).or_insert_with(draw);
        let now = *script;
        *script = match now {
            Script::Fails(left) if left > 1 => Script::Fails(left - 1),
            Script::Waits(left) if left > 1 => Script::Waits(left - 1),
            Script::Fails(_) | Script::Waits(_) => Script::Fine,
            now => now,
        };
        now
    }

    /// Notes that the consumer may give an event up.
    pub fn allow_death(&self, consumer: Durable, event_id: &str) {
        lock(&self.deadly).insert((consumer, event_id.to_owned()));
    }

    pub fn may_die(&self, consumer: Durable, event_id: &str) -> bool {
        lock(&self.deadly).contains(&(consumer, event_id.to_owned()))
    }

    /// Every handler can do with every event from now on.
    pub fn mend(&self) {
        lock(&self.scripts).values_mut().for_each(|script| *script = Script::Fine);
    }
}
