//! Any order and any number of times: the same table.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::*;
use crate::consumer::{Failure, Handler};

on_each_database! {
    any_order_with_any_duplicates_ends_in_the_same_table,
    many_rows_at_once_pass_the_same_gate,
    a_name_that_is_used_again_is_no_poison_when_the_events_come_out_of_order,
    several_handlers_share_a_consumer_and_a_transaction,
}

const SEEDS: u64 = 150;
const USERS: i64 = 5;

/// Every history in which users come, are renamed to names that others had, and go.
fn history(auth: &Auth, random: &mut StdRng) -> Vec<Message> {
    let mut messages = Vec::new();
    for _ in 0..random.random_range(1..30) {
        let number = random.random_range(1..=USERS);
        let exists = auth.state().users.get(uid(number).as_str()).is_none_or(|entry| !entry.deleted);
        if !exists {
            continue;
        }
        let is_new = !auth.state().users.contains_key(uid(number).as_str());
        let name = ["ann", "bob", "eve"][random.random_range(0..3)];
        let message = match random.random_range(0..4) {
            0 if !is_new => auth.change(number, None),
            _ => auth.named(number, name),
        };
        messages.push(message);
    }
    messages
}

/// Applies `messages`; those that are too early come again later.
async fn apply(fixture: &Fixture, mut messages: Vec<Message>) {
    let projector = Projector::new(Arc::new(UserCache), Arc::new(fixture.clock.clone()));
    while !messages.is_empty() {
        let before = messages.len();
        let mut early = Vec::new();
        for message in messages {
            let mut transaction = fixture.database.begin().await.expect("a transaction");
            match projector.handle(&message, &mut transaction).await {
                Ok(()) => fixture.database.commit(transaction).await.expect("a commit"),
                Err(Failure::Transient(_)) => early.push(message),
                Err(failure) => panic!("{failure}: {message:?}"),
            }
        }
        messages = early;
        assert!(messages.len() < before, "none of {messages:?} finds its row");
    }
}

/// As a publisher that only knows the number sends it.
pub(super) fn without_uid(message: &Message) -> Message {
    let encoding = Encoding::from_content_type(Some(&message.content_type)).expect("an encoding");
    let mut event = AnyEvent::decode(&message.subject, encoding, &message.payload).expect("an event");
    let strip = |uid: &mut String, metadata: &mut Option<edd_proto::common::EventMetadata>| {
        uid.clear();
        metadata.as_mut().expect("metadata").entity_id = "42".to_owned();
    };
    match &mut event {
        AnyEvent::UserUpdated(event) => strip(&mut event.user_uid, &mut event.metadata),
        AnyEvent::UserDeleted(event) => strip(&mut event.user_uid, &mut event.metadata),
        _ => return message.clone(),
    }
    let action = message.subject.rsplit_once('.').expect("tokens").1;
    Message { subject: format!("auth.user.42.{action}"), ..super::message(&event, encoding) }
}

async fn any_order_with_any_duplicates_ends_in_the_same_table(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let auth = Auth::new();
        let mut messages = history(&auth, &mut random);
        for message in &mut messages {
            if random.random_range(0..5) == 0 {
                *message = without_uid(message);
            }
        }
        for _ in 0..random.random_range(0..10) {
            let index = random.random_range(0..messages.len());
            messages.push(messages[index].clone());
        }
        messages.shuffle(&mut random);
        fixture.execute("DELETE FROM user_cache").await;
        apply(&fixture, messages).await;
        let expected: Vec<_> = auth.state().users.values().cloned().collect();
        assert_eq!(fixture.rows().await, expected, "seed {seed}");
    }
}

/// The bulk writer has the same gate, whatever keys share a statement.
async fn many_rows_at_once_pass_the_same_gate(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let table = Table::live(&user_cache::SHAPE);
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut entries: Vec<Entry> = Vec::new();
        for number in 0..200 {
            for version in 1..=random.random_range(1..3) {
                let names = (random.random_range(0..9) > 0).then(|| (format!("n{version}"), String::new()));
                entries.push(user_cache::entry(uid(number), version, (version == 1).then_some(number), names));
            }
        }
        let mut expected = BTreeMap::<String, Entry>::new();
        for entry in &entries {
            let number = expected.get(&entry.key).map_or(entry.fields[2].clone(), |first| first.fields[2].clone());
            let mut entry = entry.clone();
            entry.fields[2] = number;
            expected.insert(entry.key.clone(), entry);
        }
        entries.shuffle(&mut random);
        fixture.execute("DELETE FROM user_cache").await;
        let mut transaction = fixture.database.begin().await.expect("a transaction");
        let changed = table.write(&mut transaction, &entries, None, 1).await.expect("rows");
        assert!(changed >= 200, "{changed}");
        fixture.database.commit(transaction).await.expect("a commit");
        assert_eq!(fixture.rows().await, expected.into_values().collect::<Vec<_>>(), "seed {seed}");
    }
}

async fn a_name_that_is_used_again_is_no_poison_when_the_events_come_out_of_order(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let messages = [
        fixture.auth.named(1, "ann"),
        fixture.auth.named(1, "anna"),
        fixture.auth.named(2, "ann"),
        fixture.auth.change(2, None),
        fixture.auth.named(3, "ann"),
    ];
    let order = [4, 2, 0, 3, 1].map(|index: usize| messages[index].clone());
    fixture.publish(&order).await;
    assert_eq!(fixture.consume().await, [Outcome::Handled; 5]);
    fixture.assert_converged().await;
}

async fn several_handlers_share_a_consumer_and_a_transaction(kind: Kind) {
    #[derive(Debug)]
    struct Refuses;
    #[async_trait]
    impl Handler for Refuses {
        async fn handle(&self, _: &Message, _: &mut sqlx::AnyConnection) -> Result<(), Failure> {
            Err(Failure::Permanent("no".to_owned()))
        }
    }
    let fixture = Fixture::new(kind).await;
    let projector = Arc::new(Projector::new(Arc::new(UserCache), Arc::new(fixture.clock.clone())));
    let dispatcher = Dispatcher::default()
        .with(&["auth.user.*.created", "auth.user.*.updated"], projector)
        .with(&["auth.user.*.updated", "auth.session.>"], Arc::new(Refuses));
    let (database, bus, clock) = fixture.parts();
    let mut consumer = Consumer::new(SPEC, database, bus, clock, Arc::new(dispatcher));
    let mut session = fixture.auth.named(9, "ann");
    session.subject = "auth.session.x1.created".to_owned();
    let messages = [fixture.auth.named(1, "ann"), fixture.auth.named(1, "bob"), fixture.auth.change(1, None), session];
    fixture.publish(&messages).await;
    let outcomes = consumer.round(Duration::ZERO).await.expect("a bus");
    let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert_eq!((count(Outcome::Handled), count(Outcome::Dead)), (2, 2), "{outcomes:?}");
    let rows = fixture.rows().await;
    assert_eq!((rows.len(), rows[0].version), (1, 1), "what the second handler refused is not half there: {rows:?}");
}
