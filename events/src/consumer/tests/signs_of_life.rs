//! What the bus hears while a handler takes long.

use tokio::sync::{Notify, mpsc};

use super::*;
use crate::bus::watched::Watched;

on_each_database! {
    the_bus_hears_of_what_takes_long,
}

/// One that runs until it is let go, which is long.
#[derive(Debug)]
struct Slow {
    clock: ManualClock,
    begun: Notify,
    go: Notify,
}

#[async_trait]
impl Handler for Slow {
    async fn handle(&self, _: &Message, _: &mut AnyConnection) -> Result<(), Failure> {
        self.begun.notify_one();
        self.go.notified().await;
        self.clock.advance(Duration::from_secs(1));
        Ok(())
    }
}

/// The bus hears of the one that is worked on and of those behind it, and of each no more once it is answered; what is
/// not begun when the consumer stops is given back.
async fn the_bus_hears_of_what_takes_long(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c"]).await;
    let (answers, mut told) = mpsc::channel(64);
    let slow = Arc::new(Slow { clock: fixture.clock.clone(), begun: Notify::new(), go: Notify::new() });
    let bus = Watched::telling(fixture.bus.clone(), answers);
    let clock = Arc::new(fixture.clock.clone());
    let consumer = Consumer::new(AUDITOR, fixture.database.clone(), Arc::new(bus), clock, slow.clone());
    let consumer = Consumer { workers: 1, sign_every: Duration::from_millis(5), ..consumer };
    let stop = CancellationToken::new();
    let running = tokio::spawn(consumer.run(stop.clone()));
    let mut next = async || tokio::time::timeout(PATIENCE, told.recv()).await.expect("an answer").expect("an answer");
    slow.begun.notified().await;
    for _ in 0..2 {
        for seq in 1..=3 {
            assert_eq!(next().await, (seq, Answer::InProgress));
        }
    }
    slow.go.notify_one();
    while next().await != (1, Answer::Ack) {}
    slow.begun.notified().await;
    for _ in 0..4 {
        assert_eq!(next().await.1, Answer::InProgress);
    }
    stop.cancel();
    slow.go.notify_one();
    let mut last = Vec::new();
    while let Some(answer) = tokio::time::timeout(PATIENCE, told.recv()).await.expect("it stops") {
        last.push(answer);
    }
    last.retain(|(_, answer)| *answer != Answer::InProgress);
    assert_eq!(last, [(2, Answer::Ack), (3, Answer::Later(Duration::ZERO))]);
    running.await.expect("no panic");
}
