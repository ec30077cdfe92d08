//! What must hold after every schedule.

use std::collections::BTreeMap;

use edd_proto::Stream;
use sqlx::Row;

use super::ledger::{Durable, Event, durable};
use super::service::{Service, Surroundings};
use crate::dead_letter;
use crate::projection::Owner;

/// Letters, effects and rows that are looked at, at most: no schedule makes as many.
const MOST: u32 = 1000;

type Verdict<T = ()> = Result<T, String>;

fn failed(error: impl std::fmt::Display) -> String {
    format!("the end cannot be looked at: {error}")
}

/// What somebody still has to do; none if there is nothing.
pub(super) async fn left_to_do(services: &[Service], around: &Surroundings) -> Verdict<Option<String>> {
    let mut left = Vec::new();
    // The first two share a database.
    for service in &services[1..] {
        let count = sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL), (SELECT count(*) FROM retries), \
             (SELECT count(*) FROM dead_letters WHERE state = 'requeued')",
        );
        let count = count.fetch_one(service.store.truth.reader()).await.map_err(failed)?;
        if count != (0, 0, 0) {
            left.push(format!("in outbox, retries and requeued letters: {count:?}"));
        }
        for spec in &service.specs {
            let state = around.broker.consumer(spec).map_err(failed)?;
            if state.waiting + state.unanswered > 0 {
                left.push(format!("{} on {}: {state:?}", spec.name, spec.stream.name));
            }
        }
    }
    Ok((!left.is_empty()).then(|| left.join(", ")))
}

/// Nobody gave up on what another try would have done, and everybody was told of what was given up. How much that is.
pub(super) async fn dead_letters(services: &[Service], around: &Surroundings) -> Verdict<usize> {
    let told = around.broker.read(Stream::DLQ.name, 1, Stream::DLQ.subjects, MOST as usize).map_err(failed)?;
    let mut dead = 0;
    for service in services.iter().filter(|service| !service.specs.is_empty()) {
        let all = dead_letter::Filter::default();
        let letters = dead_letter::list(&service.store.truth, dead_letter::State::Dead, all, 0, MOST).await;
        for letter in letters.map_err(failed)? {
            let spec = service.specs.iter().find(|spec| spec.stream.name == letter.stream);
            let spec = spec.ok_or_else(|| format!("a letter of no consumer: {letter:?}"))?;
            dead += 1;
            let event_id = &letter.message.event_id;
            if !around.ledger.may_die(durable(spec), event_id) {
                return Err(format!("{} gave up on {event_id}, which was no poison: {letter:?}", spec.name));
            }
            let id = format!("{event_id}.{}.{}", letter.consumer, letter.attempts);
            if !told.iter().any(|(_, notice)| notice.event_id == id) && !around.broker.has_expired(&id) {
                return Err(format!("nobody was told that {} gave up on {event_id}", spec.name));
            }
        }
    }
    Ok(dead)
}

/// Replays leave nothing behind.
async fn shadows(service: &Service) -> Verdict {
    let select = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE 'user_cache_shadow%'";
    match sqlx::query_scalar::<_, i64>(select).fetch_one(service.store.truth.reader()).await.map_err(failed)? {
        0 => Ok(()),
        tables => Err(format!("replays have left {tables} tables")),
    }
}

#[derive(Debug)]
struct Effect {
    event_id: String,
    life: u32,
}

/// Every event took effect once, and none before an earlier one of its entity.
pub(super) async fn effects(services: &[Service], around: &Surroundings) -> Verdict {
    let events = around.ledger.events();
    for service in services.iter().filter(|service| !service.specs.is_empty()) {
        let letters = sqlx::query("SELECT event_id FROM dead_letters").fetch_all(service.store.truth.reader()).await;
        let letters = letters.map_err(failed)?.iter().map(|row| row.try_get("event_id")).collect::<sqlx::Result<_>>();
        let letters: Vec<String> = letters.map_err(failed)?;
        for spec in &service.specs {
            let select = "SELECT event_id, life FROM effects WHERE stream = $1 ORDER BY id";
            let rows = sqlx::query_as::<_, (String, i64)>(select).bind(spec.stream.name);
            let rows = rows.fetch_all(service.store.truth.reader()).await.map_err(failed)?;
            let effects: Vec<_> =
                rows.into_iter().map(|(event_id, life)| Effect { event_id, life: life as u32 }).collect();
            once(durable(spec), &effects, &events, around)?;
            in_order(durable(spec), &effects, &events, &letters, around)?;
            let noted = "SELECT count(*) FROM inbox WHERE consumer = $1 AND event_id IN \
                         (SELECT event_id FROM effects WHERE stream = $2)";
            let noted = sqlx::query_scalar::<_, i64>(noted).bind(spec.name).bind(spec.stream.name);
            let noted = noted.fetch_one(service.store.truth.reader()).await.map_err(failed)?;
            if noted as usize != effects.len() {
                return Err(format!("{}: {noted} in the inbox for {} effects", spec.name, effects.len()));
            }
        }
    }
    Ok(())
}

fn once(consumer: Durable, effects: &[Effect], events: &BTreeMap<String, Event>, around: &Surroundings) -> Verdict {
    let count = |event_id: &str| effects.iter().filter(|effect| effect.event_id == event_id).count();
    for (event_id, event) in events.iter().filter(|(_, event)| event.stream == consumer.1) {
        let is_excused = event.is_old || around.broker.has_expired(event_id);
        let count = count(event_id);
        if count > 1 || count == 0 && !is_excused {
            let Event { entity, version, .. } = event;
            return Err(format!("{consumer:?}: {entity} v{version} ({event_id}) took effect {count} times"));
        }
    }
    match effects.iter().find(|effect| !events.contains_key(&effect.event_id)) {
        Some(Effect { event_id, .. }) => Err(format!("{consumer:?}: {event_id} took effect and was never committed")),
        None => Ok(()),
    }
}

/// Except after a death, and where the bus itself brought the later one first.
fn in_order(
    consumer: Durable,
    effects: &[Effect],
    events: &BTreeMap<String, Event>,
    letters: &[String],
    around: &Surroundings,
) -> Verdict {
    for (index, later) in effects.iter().enumerate() {
        for earlier in &effects[..index] {
            let (a, b) = (&events[&earlier.event_id], &events[&later.event_id]);
            let is_inverted = a.entity == b.entity && a.version > b.version;
            let is_dead = [earlier, later].iter().any(|effect| letters.contains(&effect.event_id));
            if is_inverted
                && !is_dead
                && around.ledger.was_handed_before(consumer, earlier.life, &later.event_id, &earlier.event_id)
            {
                return Err(format!("{consumer:?}: {} v{} took effect before v{}", a.entity, a.version, b.version));
            }
        }
    }
    Ok(())
}

/// The projection is what its owner has; by itself, unless the bus lost what nobody could tell again.
pub(super) async fn projection(services: &[Service], around: &Surroundings) -> Verdict {
    let owner = around.auth.digest().await.map_err(failed)?;
    for service in services {
        let (Some(synchronizer), Some(reconciler)) = (service.synchronizer(), service.reconciler()) else { continue };
        let here = synchronizer.digest().await.map_err(failed)?;
        if here != owner && !around.ledger.events().values().any(|event| event.is_old) {
            return Err(format!("the projection has {here}, its owner {owner}"));
        }
        shadows(service).await?;
        let verdict = reconciler.round().await.map_err(failed)?;
        around.world.tell(format!("reconciled: {verdict:?}"));
        let here = synchronizer.digest().await.map_err(failed)?;
        if here != owner {
            return Err(format!("reconciled, the projection has {here}, its owner {owner}"));
        }
    }
    Ok(())
}
