use bytes::Bytes;
use edd_events::clock::ManualClock;
use edd_events::database::Kind;
use edd_events::publisher::{Cause, Publisher};
use edd_proto::common::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::scratch::{Scratch, on_each_database};

pub(super) const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
pub(super) const BOB: &str = "W1StGXR8_Z5jdHi6B-myT";
/// Unix seconds.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn uid(text: &str) -> UserId {
    text.parse().unwrap()
}

pub(super) fn invalidated(session_id: &str, version: i64, expires_at: Option<i64>) -> Message {
    let event = SessionInvalidated {
        session_id: session_id.to_owned(),
        user_uid: ANN.to_owned(),
        expires_at: expires_at.map(|seconds| Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    };
    message(&format!("auth.session.{session_id}.invalidated"), version, Encoding::Protobuf, &event)
}

pub(super) fn deleted(user: &str, version: i64) -> Message {
    let event = UserDeleted { user_uid: user.to_owned(), ..Default::default() };
    message(&format!("auth.user.{user}.deleted"), version, Encoding::Json, &event)
}

fn message<M: edd_proto::Message>(subject: &str, version: i64, encoding: Encoding, event: &M) -> Message {
    Message {
        event_id: format!("{subject}-{version}"),
        subject: subject.to_owned(),
        entity: subject.rsplit_once('.').unwrap().0.to_owned(),
        version,
        content_type: encoding.content_type().to_owned(),
        payload: Bytes::from(encoding.encode(event).unwrap()),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: edd_events::message::Headers::default(),
    }
}

struct Fixture {
    _scratch: Scratch,
    database: Database,
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        Self { database: scratch.open(&[STEP]).await, _scratch: scratch }
    }

    async fn handle(&self, set: &Revocations, message: &Message) {
        let mut transaction = self.database.begin().await.unwrap();
        set.handle(message, &mut transaction).await.unwrap();
        self.database.commit(transaction).await.unwrap();
    }
}

on_each_database!(
    what_is_revoked_stays_so_over_restarts,
    more_than_a_page_is_loaded,
    ended_sessions_are_forgotten_and_nothing_else,
    the_higher_version_counts_in_any_order,
    what_the_publisher_writes_is_understood,
);

async fn what_is_revoked_stays_so_over_restarts(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let set = Revocations::load(&fixture.database).await.unwrap();
    assert!(!set.is_revoked(uid(ANN), "s1"));
    fixture.handle(&set, &invalidated("s1", 2, Some(NOW))).await;
    fixture.handle(&set, &invalidated("s2", 2, None)).await;
    fixture.handle(&set, &deleted(BOB, 3)).await;
    fixture.handle(&set, &message("auth.session.s3.created", 1, Encoding::Json, &SessionInvalidated::default())).await;
    let again = Revocations::load(&fixture.database).await.unwrap();
    for set in [&set, &again] {
        assert!(set.is_revoked(uid(ANN), "s1") && set.is_revoked(uid(ANN), "s2"));
        assert!(!set.is_revoked(uid(ANN), "s3"), "of the same user, and still good");
        assert!(set.is_revoked(uid(BOB), "s9"), "all that a deleted user has");
        assert_eq!(set.len(), (2, 1));
    }
}

async fn more_than_a_page_is_loaded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let rows = PAGE_ROWS + 2;
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) \
                INSERT INTO revoked_sessions SELECT 's' || i, '', NULL, 1 FROM n";
    sqlx::query(fill).bind(rows).execute(fixture.database.writer()).await.unwrap();
    let set = Revocations::load(&fixture.database).await.unwrap();
    assert_eq!(set.len(), (usize::try_from(rows).unwrap(), 0));
    assert!(set.is_revoked(uid(ANN), &format!("s{rows}")));
}

async fn ended_sessions_are_forgotten_and_nothing_else(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let set = Revocations::default();
    fixture.handle(&set, &invalidated("short", 2, Some(NOW))).await;
    fixture.handle(&set, &invalidated("long", 2, Some(NOW + 1))).await;
    fixture.handle(&set, &invalidated("endless", 2, None)).await;
    fixture.handle(&set, &deleted(BOB, 2)).await;
    let kept = i64::try_from(KEPT_AFTER_EXPIRY.as_secs()).unwrap();
    let at = |seconds: i64| (seconds + kept) * 1_000_000;
    assert_eq!(set.prune(&fixture.database, at(NOW)).await.unwrap(), 0);
    assert!(set.is_revoked(uid(ANN), "short"), "an access token may be around still");
    assert_eq!(set.prune(&fixture.database, at(NOW) + 1).await.unwrap(), 1);
    let again = Revocations::load(&fixture.database).await.unwrap();
    for set in [&set, &again] {
        assert_eq!(set.len(), (2, 1));
        assert!(!set.is_revoked(uid(ANN), "short") && set.is_revoked(uid(ANN), "long"));
    }
    assert_eq!(set.prune(&fixture.database, i64::MAX).await.unwrap(), 1);
    assert_eq!(set.len(), (1, 1));
}

/// A row and the set agree on which of two events about one session counts.
async fn the_higher_version_counts_in_any_order(kind: Kind) {
    for order in [[0, 1], [1, 0]] {
        let fixture = Fixture::new(kind).await;
        let set = Revocations::default();
        let events = [invalidated("s1", 2, Some(NOW)), invalidated("s1", 3, None)];
        for index in order {
            fixture.handle(&set, &events[index]).await;
        }
        let again = Revocations::load(&fixture.database).await.unwrap();
        for set in [&set, &again] {
            set.prune(&fixture.database, i64::MAX).await.unwrap();
            assert!(set.is_revoked(uid(ANN), "s1"), "{order:?}");
        }
    }
}

async fn what_the_publisher_writes_is_understood(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let clock = Arc::new(ManualClock::at(NOW * 1_000_000));
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let publisher = Publisher::new("auth-service", encoding, clock.clone());
        let mut transaction = fixture.database.begin().await.unwrap();
        let session_id = format!("s-{encoding}");
        let event = SessionInvalidated {
            session_id: session_id.clone(),
            user_uid: ANN.to_owned(),
            expires_at: Some(Timestamp { seconds: NOW, nanos: 0 }),
            ..Default::default()
        };
        let version = publisher.add(&mut transaction, event, &Cause::default()).await.unwrap();
        fixture.database.commit(transaction).await.unwrap();
        let rows = edd_events::outbox::pending(&fixture.database, 10).await.unwrap();
        let row = rows.iter().find(|row| row.message.subject.contains(&session_id)).unwrap();
        let (user, expires_at) = (Some(uid(ANN)), Some(NOW * 1_000_000));
        let expected = Revocation::Session { session_id, user, expires_at, version };
        assert_eq!(Revocation::of(&row.message), Ok(Some(expected)));
        assert!(SUBJECTS.iter().any(|filter| edd_proto::covers(filter, &row.message.subject)));
    }
    assert!(SUBJECTS.iter().any(|filter| edd_proto::covers(filter, &deleted(ANN, 1).subject)));
}

#[test]
fn events_that_revoke_nobody_knows_what_are_dead() {
    let dead = |message: &Message| matches!(Revocation::of(message), Err(Failure::Permanent(_)));
    let broken = |change: fn(&mut Message)| {
        let mut message = invalidated("s1", 2, None);
        change(&mut message);
        message
    };
    assert!(dead(&broken(|m| m.payload = Bytes::from_static(b"\xff"))));
    assert!(dead(&broken(|m| m.payload = Bytes::new())), "no session");
    assert!(dead(&broken(|m| m.content_type = "text/plain".to_owned())));
    let mut number = deleted(ANN, 2);
    number.payload = Bytes::from_static(b"{\"user_number\":42}");
    assert_eq!(Revocation::of(&number), Ok(Some(Revocation::User { user: uid(ANN), version: 2 })), "by its subject");
    number.subject = "auth.user.42.deleted".to_owned();
    assert!(dead(&number));
    assert_eq!(Revocation::of(&broken(|m| m.subject = "auth.user.x.updated".to_owned())), Ok(None));
    assert_eq!(Revocation::of(&broken(|m| m.subject = "what.ever".to_owned())), Ok(None));
    let far = invalidated("s1", 2, Some(i64::MAX));
    assert!(
        matches!(Revocation::of(&far), Ok(Some(Revocation::Session { expires_at, .. })) if expires_at.is_none_or(|at| at == i64::MAX))
    );
}

proptest! {
    /// Any order, any number of deliveries: the same set.
    #[test]
    fn the_set_depends_on_the_events_alone(picks in prop::collection::vec((0_usize..4, 1_i64..4), 1..24), seed: u64) {
        let message = |(what, version): &(usize, i64)| match what {
            0 => deleted(BOB, *version),
            session => invalidated(&format!("s{session}"), *version, (*version < 3).then_some(NOW + *version)),
        };
        let (set, shuffled) = (Revocations::default(), Revocations::default());
        picks.iter().for_each(|pick| set.apply(&message(pick)).unwrap());
        let mut order: Vec<_> = picks.iter().chain(&picks).collect();
        order.sort_by_key(|pick| (pick.0 as u64 ^ seed).wrapping_mul(pick.1 as u64 | seed | 1));
        order.iter().for_each(|pick| shuffled.apply(&message(pick)).unwrap());
        let state = |set: &Revocations| {
            let snapshot = set.0.snapshot.load();
            let sessions = snapshot.sessions.iter().map(|(id, ended)| (id.clone(), ended.expires_at, ended.version));
            let mut sessions: Vec<_> = sessions.collect();
            sessions.sort();
            (sessions, snapshot.users.contains(&uid(BOB)))
        };
        prop_assert_eq!(state(&set), state(&shuffled));
    }
}
