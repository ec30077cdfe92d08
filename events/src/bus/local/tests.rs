//! What only this bus does: its file survives it, and its clock is ours.

use super::*;
use crate::bus::conformance::{self, AUDITOR, KEYS, MAILER, USERS, message};
use crate::clock::{ManualClock, SystemClock};

const NOW: Duration = Duration::ZERO;

async fn open(dir: &tempfile::TempDir, clock: impl Clock + 'static) -> LocalBus {
    let bus = LocalBus::open(&dir.path().join("bus.db"), Arc::new(clock)).await.expect("a bus");
    bus.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("streams and consumers");
    bus
}

async fn ids(bus: &LocalBus, most: usize) -> Vec<String> {
    let deliveries = bus.pull(&AUDITOR, most, NOW).await.expect("deliveries");
    deliveries.into_iter().map(|delivery| delivery.message.event_id).collect()
}

#[tokio::test]
async fn it_is_a_bus() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bus = LocalBus::open(&dir.path().join("bus.db"), Arc::new(SystemClock)).await.expect("a bus");
    conformance::check(Arc::new(bus)).await;
}

#[tokio::test]
async fn a_restart_forgets_no_message_and_no_answer() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::at(1_000_000);
    {
        let bus = open(&dir, clock.clone()).await;
        let messages: Vec<_> = (1..=5).map(|n| message(&n.to_string(), "user.a.updated")).collect();
        assert!(bus.publish(&messages).await.1.is_none());
        let deliveries = bus.pull(&AUDITOR, 4, NOW).await.expect("deliveries");
        for answered in [0, 2] {
            bus.answer(&AUDITOR, &deliveries[answered], Answer::Ack).await.expect("an answer");
        }
    }
    let bus = open(&dir, clock).await;
    assert_eq!(bus.consumer(&AUDITOR).await.expect("a state").ack_floor, 1);
    assert_eq!(ids(&bus, 10).await, ["2", "4", "5"]);
    let (positions, _) = bus.publish(&[message("3", "user.a.updated"), message("6", "user.a.updated")]).await;
    assert_eq!(positions.iter().map(|position| position.seq).collect::<Vec<_>>(), [3, 6]);
}

#[tokio::test]
async fn what_is_not_answered_in_time_comes_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::at(1_000_000);
    let bus = open(&dir, clock.clone()).await;
    bus.publish(&[message("1", "user.a.created"), message("2", "user.b.created")]).await;
    let deliveries = bus.pull(&AUDITOR, 2, NOW).await.expect("deliveries");
    clock.advance(ACK_WAIT - Duration::from_millis(1));
    bus.answer(&AUDITOR, &deliveries[1], Answer::InProgress).await.expect("a sign of life");
    assert!(ids(&bus, 2).await.is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(ids(&bus, 2).await, ["1"]);
    clock.advance(ACK_WAIT);
    assert_eq!(ids(&bus, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn unanswered_messages_are_bounded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bus = open(&dir, ManualClock::at(1)).await;
    let messages: Vec<_> = (0..MAX_ACK_PENDING + 2).map(|n| message(&n.to_string(), "user.a.updated")).collect();
    assert!(bus.publish(&messages).await.1.is_none());
    let held = bus.pull(&AUDITOR, 2 * MAX_ACK_PENDING, NOW).await.expect("deliveries");
    assert_eq!(held.len(), MAX_ACK_PENDING);
    assert!(ids(&bus, 10).await.is_empty());
    bus.answer(&AUDITOR, &held[5], Answer::Ack).await.expect("an answer");
    assert_eq!(ids(&bus, 10).await, [MAX_ACK_PENDING.to_string()]);
}

#[tokio::test]
async fn old_messages_go_and_consumers_pass_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::at(1_000_000);
    let bus = open(&dir, clock.clone()).await;
    bus.publish(&[message("1", "user.a.created"), message("2", "user.b.created")]).await;
    clock.advance(USERS.retention() + Duration::from_secs(1));
    bus.publish(&[message("3", "user.c.created")]).await;
    let state = bus.stream("USERS").await.expect("a state");
    assert_eq!((state.first_seq, state.last_seq), (3, 3));
    assert_eq!(ids(&bus, 10).await, ["3"]);
}
