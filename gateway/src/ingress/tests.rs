//! The decider against its definition, on both databases: what is gone goes first, then who asked first is served first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use edd_events::clock::ManualClock;
use edd_events::compute_cache;
use edd_events::compute_cache::ingress_requests::IngressRequest;
use edd_events::database::{Database, Kind, is_outage};
use edd_events::outbox;
use edd_events::publisher::{PublishError, Publisher};
use edd_proto::compute::IngressProtocol;
use edd_proto::gateway::IngressRejection;
use edd_proto::{AnyEvent, ContainerId, Encoding};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::scratch::{Scratch, on_each_database};
use crate::table::ports::PortRule;

const PROTOCOLS: [IngressProtocol; 4] =
    [IngressProtocol::Unspecified, IngressProtocol::Http, IngressProtocol::Tls, IngressProtocol::Tcp];
/// The machine has something else there.
const UNAVAILABLE: u16 = 8003;
const RESERVED: u16 = 8004;
const MOST_EVENTS: u32 = 100_000;
const INSERT_CONTAINER: &str = "INSERT INTO containers (container_id, user_id, name, address, ssh_key_ids, \
                                ssh_host_key_fingerprint, version, deleted, synced_at, round)";
const INSERT_REQUEST: &str = "INSERT INTO ingress_request_cache (place, container_id, port, target_port, protocol, \
                              request_id, version, deleted, synced_at, round)";

on_each_database! {
    random_walks_end_as_their_definition_says,
    ten_thousand_requests_at_once_are_answered_by_rivals,
    a_running_decider_is_woken_and_followed,
}

struct Scripted;

impl Machine for Scripted {
    fn offers(&self, port: u16) -> io::Result<()> {
        if port == UNAVAILABLE { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
    }
}

fn container(number: usize) -> ContainerId {
    format!("c{number:09}").parse().expect("an id")
}

/// gateway_db with the projections as a consumer would have left them.
struct Fixture {
    database: Database,
}

impl Fixture {
    async fn open(scratch: &Scratch) -> Self {
        let steps: Vec<_> = compute_cache::STEPS.into_iter().chain([STEP]).collect();
        Self { database: scratch.open(&steps).await }
    }

    fn decider(&self) -> Decider {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let publisher = Publisher::new("gateway-service", Encoding::Protobuf, clock.clone());
        let range = "8000-8004".parse().expect("a range");
        let policy = PortPolicy { range, reserved: BTreeSet::from([RESERVED]) };
        Decider::new(self.database.clone(), publisher, clock, policy, Arc::new(Scripted))
    }

    /// Sets whether a container lives; none: it is not known.
    async fn set_container(&self, id: ContainerId, lives: Option<bool>) {
        let delete = sqlx::query("DELETE FROM containers WHERE container_id = $1").bind(id.to_string());
        delete.execute(self.database.writer()).await.expect("a delete");
        let Some(lives) = lives else { return };
        let statement = format!("{INSERT_CONTAINER} VALUES ($1, '', '', '', '', '', 1, $2, 0, 0)");
        let insert = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id.to_string()).bind(i64::from(!lives));
        insert.execute(self.database.writer()).await.expect("an insert");
    }

    /// Sets what is asked for at a place; none: it was taken back.
    async fn set_request(&self, id: ContainerId, port: i32, request: Option<IngressRequest>) {
        let place = format!("{id}/{port}");
        let delete = sqlx::query("DELETE FROM ingress_request_cache WHERE place = $1").bind(&place);
        delete.execute(self.database.writer()).await.expect("a delete");
        // As the projection leaves them: a tombstone keeps its key alone.
        let statement = format!("{INSERT_REQUEST} VALUES ($1, $2, $3, $4, $5, $6, 1, $7, 0, 0)");
        let insert = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(&place)
            .bind(request.as_ref().map_or(String::new(), |it| it.container.to_string()))
            .bind(request.as_ref().map(|it| i64::from(it.port)))
            .bind(request.as_ref().map(|it| i64::from(it.target_port)))
            .bind(request.as_ref().map(|it| i64::from(it.protocol as i32)))
            .bind(request.as_ref().map(|it| it.request_id))
            .bind(i64::from(request.is_none()));
        insert.execute(self.database.writer()).await.expect("an insert");
    }

    /// As a consumer's transaction ends.
    async fn commit(&self) {
        let transaction = self.database.begin().await.expect("a transaction");
        self.database.commit(transaction).await.expect("a commit");
    }

    /// Every event so far, in order.
    async fn events(&self) -> Vec<AnyEvent> {
        let rows = outbox::pending(&self.database, MOST_EVENTS).await.expect("rows");
        let decode = |row: &outbox::Pending| {
            AnyEvent::decode(&row.message.subject, Encoding::Protobuf, &row.message.payload).expect("an event")
        };
        rows.iter().map(decode).collect()
    }
}

async fn settle(decider: &Decider) -> usize {
    let mut decided = 0;
    loop {
        match decider.round().await {
            Ok(0) => return decided,
            Ok(some) => decided += some,
            // A rival was at it for longer than SQLite waits.
            Err(PublishError::Database(error)) if is_outage(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What an event says: of which request, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Created(i64),
    Rejected(i64, IngressRejection),
    Deleted(i64),
}

fn answer(event: &AnyEvent) -> Answer {
    match event {
        AnyEvent::IngressRuleCreated(event) => Answer::Created(event.request_id),
        AnyEvent::IngressRuleRejected(event) => {
            assert!(
                event.message.contains("ask for another")
                    || event.message.contains("name one")
                    || event.message.contains("ask for one"),
                "says what to do: {}",
                event.message
            );
            Answer::Rejected(event.request_id, event.reason())
        }
        AnyEvent::IngressRuleDeleted(event) => Answer::Deleted(event.request_id),
        other => panic!("not the gateway's: {other:?}"),
    }
}

/// The definition: the same decisions from memory, one request at a time.
#[derive(Default)]
struct Model {
    containers: BTreeMap<ContainerId, Option<bool>>,
    requests: BTreeMap<(ContainerId, i32), IngressRequest>,
    /// The answered ones; true for those that were given.
    answered: BTreeMap<(ContainerId, i32), (IngressRequest, bool)>,
    told: Vec<Answer>,
}

impl Model {
    fn lives(&self, id: ContainerId) -> bool {
        self.containers.get(&id).copied().flatten() == Some(true)
    }

    fn settle(&mut self) {
        let answered = std::mem::take(&mut self.answered);
        for (place, (old, given)) in answered {
            let stays = self.requests.get(&place).is_some_and(|now| now.request_id == old.request_id);
            if stays && self.lives(place.0) {
                self.answered.insert(place, (old, given));
            } else {
                self.told.push(Answer::Deleted(old.request_id));
            }
        }
        let mut open: Vec<_> = self.requests.iter().filter(|(place, _)| !self.answered.contains_key(place)).collect();
        open.sort_by_key(|(_, request)| request.request_id);
        let open: Vec<_> = open.into_iter().map(|(place, request)| (*place, request.clone())).collect();
        for (place, request) in open {
            if self.lives(place.0) {
                let refusal = self.refusal(&request);
                self.told.push(match refusal {
                    None => Answer::Created(request.request_id),
                    Some(reason) => Answer::Rejected(request.request_id, reason),
                });
                self.answered.insert(place, (request, refusal.is_none()));
            }
        }
    }

    fn refusal(&self, request: &IngressRequest) -> Option<IngressRejection> {
        let is_raw = |it: &IngressRequest| it.protocol == IngressProtocol::Tcp;
        let mut others = self
            .answered
            .values()
            .filter(|(it, given)| *given && it.port == request.port && it.container != request.container);
        if !(8000..=8004).contains(&request.port) {
            Some(IngressRejection::PortOutOfRange)
        } else if request.port == i32::from(RESERVED) {
            Some(IngressRejection::PortReserved)
        } else if !(1..=65535).contains(&request.target_port) {
            Some(IngressRejection::TargetPortInvalid)
        } else if others.any(|(it, _)| is_raw(it) || is_raw(request)) {
            Some(IngressRejection::PortTaken)
        } else if request.port == i32::from(UNAVAILABLE) {
            Some(IngressRejection::PortUnavailable)
        } else {
            None
        }
    }

    fn rules(&self) -> Rules {
        let given = self.answered.iter().filter(|(_, (_, given))| *given);
        given
            .map(|((container, port), (request, _))| {
                let (port, target_port) = (*port as u16, request.target_port as u16);
                let protocol = rule::protocol(request.protocol);
                ((*container, port), PortRule { container: *container, port, target_port, protocol })
            })
            .collect()
    }
}

/// One thing that happens to the projections.
async fn step(fixture: &Fixture, model: &mut Model, random: &mut StdRng, request_id: &mut i64) {
    let id = container(random.random_range(0..6));
    let port = [8000, 8000, 8001, 8001, 8002, 8003, 8004, 7999, -1][random.random_range(0..9)];
    match random.random_range(0..10) {
        0 => {
            let lives = [None, Some(false), Some(true)][random.random_range(0..3)];
            fixture.set_container(id, lives).await;
            model.containers.insert(id, lives);
        }
        1 | 2 => {
            fixture.set_container(id, Some(true)).await;
            model.containers.insert(id, Some(true));
        }
        3 | 4 => {
            fixture.set_request(id, port, None).await;
            model.requests.remove(&(id, port));
        }
        _ => {
            *request_id += 1;
            let target_port = [80, 80, 80, 0, 65536][random.random_range(0..5)];
            let protocol = PROTOCOLS[random.random_range(0..4)];
            let request = IngressRequest { container: id, port, target_port, protocol, request_id: *request_id };
            fixture.set_request(id, port, Some(request.clone())).await;
            model.requests.insert((id, port), request);
        }
    }
}

async fn random_walks_end_as_their_definition_says(kind: Kind) {
    for seed in 0..4 {
        let scratch = Scratch::new(kind);
        let fixture = Fixture::open(&scratch).await;
        let (decider, mut feed) = (fixture.decider(), RuleFeed::new(fixture.database.clone()));
        let (mut model, mut random, mut request_id) = (Model::default(), StdRng::seed_from_u64(seed), 0);
        for _ in 0..40 {
            for _ in 0..random.random_range(1..6) {
                step(&fixture, &mut model, &mut random, &mut request_id).await;
            }
            settle(&decider).await;
            model.settle();
            feed.refresh().await.expect("rules");
            assert_eq!(*feed.rules().borrow(), model.rules(), "seed {seed}: what replicas know");
        }
        let told: Vec<Answer> = fixture.events().await.iter().map(answer).collect();
        let sorted = |answers: &[Answer]| {
            let mut lines: Vec<_> = answers.iter().map(|answer| format!("{answer:?}")).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&told), sorted(&model.told), "seed {seed}: each request is answered, and once");
        assert_eq!(settle(&decider).await, 0, "nothing differs any more");
        let mut late = RuleFeed::new(fixture.database.clone());
        late.refresh().await.expect("rules");
        assert_eq!(*late.rules().borrow(), model.rules(), "seed {seed}: who comes late knows the same");
        let rules = late.rules().borrow().clone();
        for one in rules.values() {
            let beside = |other: &&PortRule| other.port == one.port && other.container != one.container;
            let fits = |other: &PortRule| one.protocol.shares_with(other.protocol);
            assert!(rules.values().filter(beside).all(fits), "seed {seed}: {one:?}");
        }
    }
}

async fn ten_thousand_requests_at_once_are_answered_by_rivals(kind: Kind) {
    // A server takes its time for each statement of a debug build.
    let is_full_run = std::env::var_os("EDD_TEST_FULL").is_some();
    let count = if kind == Kind::Sqlite || is_full_run { 10_000 } else { 2_000 };
    let scratch = Scratch::new(kind);
    let (fixture, rival) = (Fixture::open(&scratch).await, Fixture::open(&scratch).await);
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
        let request = |number: &usize| {
            // Of the third port, the first one asks for all of it.
            let protocol = if *number == 2 { IngressProtocol::Tcp } else { IngressProtocol::Http };
            let (id, port) = (container(*number), 8000 + number % 3);
            format!("('{id}/{port}', '{id}', {port}, 80, {}, {}, 1, 0, 0, 0)", protocol as i32, number + 1)
        };
        let container = |number: &usize| format!("('{}', '', '', '', '', '', 1, 0, 0, 0)", container(*number));
        let requests: Vec<_> = chunk.iter().map(request).collect();
        let containers: Vec<_> = chunk.iter().map(container).collect();
        for statement in [
            format!("{INSERT_REQUEST} VALUES {}", requests.join(", ")),
            format!("{INSERT_CONTAINER} VALUES {}", containers.join(", ")),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *transaction).await.expect("rows");
        }
    }
    fixture.database.commit(transaction).await.expect("a commit");
    let (one, other) = (fixture.decider(), rival.decider());
    let (some, rest) = tokio::join!(settle(&one), settle(&other));
    assert_eq!(some + rest, count);
    let events = fixture.events().await;
    let answers: Vec<Answer> = events.iter().map(answer).collect();
    let requests: BTreeSet<i64> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Created(id) | Answer::Rejected(id, _) | Answer::Deleted(id) => *id,
        })
        .collect();
    assert_eq!((answers.len(), requests.len()), (count, count), "each once");
    let taken = answers.iter().filter(|it| matches!(it, Answer::Rejected(_, IngressRejection::PortTaken))).count();
    assert_eq!(taken, count / 3 - 1);
    assert_eq!(answers.iter().filter(|it| matches!(it, Answer::Created(_))).count(), count - taken);
    let mut feed = RuleFeed::new(rival.database.clone());
    feed.refresh().await.expect("rules");
    assert_eq!(feed.rules().borrow().len(), count - taken);
}

async fn a_running_decider_is_woken_and_followed(kind: Kind) {
    let scratch = Scratch::new(kind);
    let fixture = Fixture::open(&scratch).await;
    let stop = CancellationToken::new();
    let feed = RuleFeed::new(fixture.database.clone());
    let mut rules = feed.rules();
    let running = [tokio::spawn(fixture.decider().run(stop.clone())), tokio::spawn(feed.run(stop.clone()))];
    let id = container(1);
    let request =
        IngressRequest { container: id, port: 8000, target_port: 3000, protocol: IngressProtocol::Tcp, request_id: 7 };
    fixture.set_request(id, 8000, Some(request)).await;
    fixture.set_container(id, Some(true)).await;
    fixture.commit().await;
    let known = rules.wait_for(|rules| rules.get(&(id, 8000)).is_some_and(|rule| rule.target_port == 3000)).await;
    drop(known.expect("a rule"));
    fixture.set_container(id, Some(false)).await;
    fixture.commit().await;
    drop(rules.wait_for(imbl::GenericOrdMap::is_empty).await.expect("none"));
    stop.cancel();
    for task in running {
        task.await.expect("it ends");
    }
    let told: Vec<Answer> = fixture.events().await.iter().map(answer).collect();
    assert_eq!(told, [Answer::Created(7), Answer::Deleted(7)]);
}
