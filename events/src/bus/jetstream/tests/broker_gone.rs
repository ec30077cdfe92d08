//! A broker that is away, comes back, forgets, or is cut off in the middle of a word.

use std::collections::HashSet;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn until_connected(bus: &JetStreamBus) {
    let connected = async {
        while !bus.is_connected() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.expect("a connection");
}

#[tokio::test]
async fn a_broker_that_is_away_fails_every_call_and_is_used_when_it_comes() {
    let nats = Nats::start();
    nats.stop();
    let bus = connect(&nats).await;
    assert!(!bus.is_connected());
    let delivery =
        Delivery { message: message("1", "user.a.created"), seq: 1, delivered: 1, token: "$JS.ACK.x".to_owned() };
    let calls = async {
        let question = bus.ask("check.length", "?".into(), PATIENCE).await.map(drop);
        let errors = [
            bus.ensure(&[USERS], &[MAILER]).await,
            bus.publish(&[message("1", "user.a.created")]).await.1.map_or(Ok(()), Err),
            bus.stream("USERS").await.map(drop),
            bus.consumer(&MAILER).await.map(drop),
            bus.pull(&MAILER, 1, MOMENT).await.map(drop),
            bus.answer(&MAILER, &delivery, Answer::Ack).await,
            bus.read("USERS", 1, &["user.>"], 1).await.map(drop),
            bus.arrival("USERS", 1, MOMENT).await,
            bus.serve("check.length").await.map(drop),
            question,
        ];
        for (index, error) in errors.into_iter().enumerate() {
            assert!(matches!(error, Err(BusError::Unavailable(_))), "call {index}: {error:?}");
        }
    };
    tokio::time::timeout(2 * PATIENCE, calls).await.expect("bounded waits");
    nats.restart();
    until_connected(&bus).await;
    bus.ensure(&[USERS], &[MAILER]).await.expect("streams and consumers");
    assert!(bus.publish(&[message("1", "user.a.created")]).await.1.is_none());
    // Nothing that failed is done later.
    assert_eq!(bus.stream("USERS").await.expect("a state").last_seq, 1);
}

#[tokio::test]
async fn a_broker_killed_under_load_loses_and_reorders_nothing() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    bus.shorten_ack_wait(&AUDITOR, Duration::from_secs(1)).await;
    let messages = changes(6000);
    let mut seen = HashSet::new();
    let consumed = async {
        // An answer may be lost, or its confirmation: what counts is that all came, and that no more will.
        while bus.consumer(&AUDITOR).await.map_or(0, |state| state.ack_floor) < messages.len() as u64 {
            let Ok(deliveries) = bus.pull(&AUDITOR, BATCH, MOMENT).await else { continue };
            for delivery in deliveries {
                let answered = bus.answer(&AUDITOR, &delivery, Answer::Ack).await;
                seen.insert(delivery.message.event_id);
                // A killed server has forgotten its last deliveries and says nothing to answers to them.
                if answered.is_err() {
                    break;
                }
            }
        }
    };
    let killed = async {
        for least in [1000, 3000] {
            while bus.stream("USERS").await.map_or(0, |state| state.last_seq) < least {
                tokio::task::yield_now().await;
            }
            nats.kill9();
            // So that both sides meet a broker that is away.
            bus.stream("USERS").await.expect_err("nobody is there");
            nats.restart();
        }
    };
    tokio::time::timeout(6 * PATIENCE, async { tokio::join!(publish_all(&bus, &messages), consumed, killed) })
        .await
        .expect("an end");
    assert_eq!(bus.ids("USERS").await, ids_of(&messages));
    assert_eq!(seen.len(), messages.len());
}

#[tokio::test]
async fn who_waits_hears_that_the_broker_is_gone() {
    const HOUR: Duration = Duration::from_secs(3600);
    let nats = Nats::start();
    let bus = bus(&nats).await;
    let questions = bus.serve("check.length").await.expect("a service");
    let waits = async {
        tokio::join!(
            bus.pull(&AUDITOR, 1, HOUR),
            bus.arrival("USERS", 0, HOUR),
            bus.ask("check.length", "?".into(), HOUR),
            async {
                while bus.admin("CONSUMER.INFO.USERS.auditor", Value::Null).await["num_waiting"] != 1 {}
                nats.kill9();
            }
        )
    };
    let (pulled, arrived, answered, ()) = tokio::time::timeout(PATIENCE, waits).await.expect("an end");
    assert!(matches!(pulled, Err(BusError::Unavailable(_))), "{pulled:?}");
    assert!(matches!(arrived, Err(BusError::Unavailable(_))), "{arrived:?}");
    assert!(matches!(answered, Err(BusError::Unavailable(_))), "{answered:?}");
    nats.restart();
    until_connected(&bus).await;
    // What was served is served again without being asked to.
    let (answer, ()) = tokio::join!(bus.ask("check.length", "!".into(), PATIENCE), answer_one(questions));
    assert_eq!(answer.expect("an answer"), "1");
}

async fn answer_one(mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        // Who asked the first is gone.
        let answer = Bytes::from(question.payload.len().to_string());
        if question.reply.send(answer).is_ok() && question.payload == "!" {
            return;
        }
    }
}

#[tokio::test]
async fn what_is_deleted_is_there_again_with_another_epoch() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    publish_all(&bus, &changes(3)).await;
    let before = bus.stream("USERS").await.expect("a state");
    bus.admin("STREAM.DELETE.USERS", Value::Null).await;
    // Whoever notices first.
    let failure = bus.publish(&changes(2)).await.1;
    assert!(matches!(failure, Some(BusError::Unavailable(_))), "{failure:?}");
    let after = bus.stream("USERS").await.expect("a state");
    assert!(after.epoch > before.epoch, "{after:?} {before:?}");
    assert_eq!((after.first_seq, after.last_seq), (1, 0));
    publish_all(&bus, &changes(2)).await;
    assert_eq!(bus.pull(&AUDITOR, 10, PATIENCE).await.expect("deliveries").len(), 2);

    bus.admin("CONSUMER.DELETE.USERS.auditor", Value::Null).await;
    bus.pull(&AUDITOR, 10, PATIENCE).await.expect_err("it was gone");
    assert_eq!(bus.pull(&AUDITOR, 10, PATIENCE).await.expect("deliveries").len(), 2);

    bus.admin("STREAM.DELETE.USERS", Value::Null).await;
    assert!(matches!(bus.stream("USERS").await, Err(BusError::Unavailable(_))));
    assert!(bus.stream("USERS").await.expect("a state").epoch > after.epoch);
}

#[tokio::test]
async fn a_broker_that_lost_its_data_gets_streams_and_consumers_again() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    publish_all(&bus, &changes(3)).await;
    let before = bus.stream("USERS").await.expect("a state");
    nats.stop();
    nats.wipe_data();
    nats.restart();
    let after = loop {
        match bus.stream("USERS").await {
            Ok(state) => break state,
            Err(error) => assert!(matches!(error, BusError::Unavailable(_)), "{error}"),
        }
    };
    assert!(after.epoch > before.epoch && after.last_seq == 0, "{after:?}");
    publish_all(&bus, &changes(3)).await;
    assert_eq!(bus.pull(&AUDITOR, 10, PATIENCE).await.expect("deliveries").len(), 3);
}

#[tokio::test]
async fn a_full_disk_takes_nothing_out_of_order() {
    let nats = Nats::with_config("jetstream { max_file_store: 1MB }");
    let bus = bus(&nats).await;
    let mut messages = changes(400);
    for message in &mut messages {
        message.payload = Bytes::from(vec![7; 5000]);
    }
    let mut taken = 0;
    let failure = loop {
        let (positions, failure) = bus.publish(&messages[taken..messages.len().min(taken + 64)]).await;
        taken += positions.len();
        if let Some(failure) = failure {
            break failure;
        }
    };
    assert!(matches!(failure, BusError::Unavailable(_)), "{failure}");
    assert!(taken > 64, "{taken}");
    let kept = bus.ids("USERS").await;
    assert_eq!(kept, ids_of(&messages[..kept.len()]));
    assert!(kept.len() >= taken);
}

/// Passes the first connections on to a server for `limits` bytes each, and the later ones for ever.
async fn cutter(server: String, limits: Vec<u64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut limits = limits.into_iter();
        loop {
            let (client, _) = listener.accept().await.expect("a connection");
            let server = TcpStream::connect(&server).await.expect("a server");
            let limit = limits.next().unwrap_or(u64::MAX);
            tokio::spawn(async move {
                let (client_reads, mut client_writes) = client.into_split();
                let (mut server_reads, mut server_writes) = server.into_split();
                let mut sent = tokio::io::AsyncReadExt::take(client_reads, limit);
                // Cut off by an error as well as by the limit.
                tokio::select! {
                    _ = tokio::io::copy(&mut sent, &mut server_writes) => {}
                    _ = tokio::io::copy(&mut server_reads, &mut client_writes) => {}
                }
                let _ = server_writes.shutdown().await;
            });
        }
    });
    format!("nats://{address}")
}

#[tokio::test]
async fn connections_cut_anywhere_in_a_batch_reorder_nothing() {
    let nats = Nats::start();
    bus(&nats).await;
    // Each batch has about 120 kB, so these end in all parts of one, and after the last byte but one.
    let limits = (0..24).map(|number| 20_000 + 9_973 * number).collect();
    let urls = cutter(nats.url().replace("nats://", ""), limits).await;
    let config = JetStreamConfig { urls, ..config(&nats) };
    let cut = JetStreamBus::connect(&config).await.expect("settings");
    while cut.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.is_err() {}
    let messages = changes(8000);
    tokio::time::timeout(6 * PATIENCE, publish_all(&cut, &messages)).await.expect("an end");
    assert_eq!(bus(&nats).await.ids("USERS").await, ids_of(&messages));
}
