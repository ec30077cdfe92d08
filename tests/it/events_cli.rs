//! `edd events` and `edd dlq`, on databases that services have filled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_events::bus::Bus;
use edd_events::bus::local::LocalBus;
use edd_events::clock::{Clock, SystemClock};
use edd_events::consumer::{Consumer, Failure, Handler, Outcome};
use edd_events::database::Database;
use edd_events::dead_letter;
use edd_events::message::Message;
use edd_events::publisher::{Cause, Publisher};
use edd_events::relay::Relay;
use edd_proto::auth::{UserCreated, UserDeleted};
use edd_proto::{CONSUMERS, Encoding, Stream};
use edd_servers::postgres::Postgres;
use serde_json::{Value, json};
use sqlx::AnyConnection;

use crate::harness::{Cases, Output, Program, Workdir};

const UID: &str = "V1StGXR8_Z5jdHi6B-myT";
const OTHER: &str = "Uakgb_J5m9g-0JDMbcJqL";

async fn edd(dir: &Workdir, arguments: &[&str]) -> Output {
    Program::edd(arguments).dir(dir.path()).run().await
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// A service's own events in its database: a user that is created and deleted, and another.
async fn fill(database: &Database) {
    let publisher = Publisher::new("auth", Encoding::Protobuf, clock());
    let cause = Cause { correlation_id: "request-1".to_owned(), trace_parent: String::new() };
    for (uid, cause) in [(UID, &cause), (OTHER, &Cause::default())] {
        let created =
            UserCreated { user_uid: uid.to_owned(), username: format!("ann {uid}"), ..UserCreated::default() };
        add(database, &publisher, created, cause).await;
    }
    add(database, &publisher, UserDeleted { user_uid: UID.to_owned(), ..UserDeleted::default() }, &cause).await;
}

async fn add<E: edd_proto::Event>(database: &Database, publisher: &Publisher, event: E, cause: &Cause) {
    let mut transaction = database.begin().await.expect("a transaction");
    publisher.add(&mut transaction, event, cause).await.expect("a row");
    database.commit(transaction).await.expect("a commit");
}

/// Handles nothing.
#[derive(Debug)]
struct Refusing;

#[async_trait]
impl Handler for Refusing {
    async fn handle(&self, _: &Message, _: &mut AnyConnection) -> Result<(), Failure> {
        Err(Failure::Permanent("no such user\nat all".to_owned()))
    }
}

/// auth's events, and dead letters of them in the databases of sfs and compute.
struct World {
    dir: Workdir,
    auth: Database,
    sfs: Database,
    bus: Arc<LocalBus>,
}

impl World {
    async fn new() -> Self {
        let dir = Workdir::new();
        let data = dir.dir("data");
        let open = async |name: &str| Database::open_file(&data.join(name), &[]).await.expect("a database");
        let (auth, sfs, compute) = (open("auth.db").await, open("sfs.db").await, open("compute.db").await);
        let bus = Arc::new(LocalBus::open(&data.join("bus.db"), clock()).await.expect("a bus"));
        bus.ensure(&[Stream::AUTH, Stream::DLQ], &CONSUMERS[..2]).await.expect("streams");
        fill(&auth).await;
        let relay = Relay::new(auth.clone(), bus.clone(), clock(), [Stream::AUTH]);
        assert_eq!(relay.round().await.expect("a round").published, 3);
        let world = Self { dir, auth, sfs, bus };
        world.try_all(0, &world.sfs).await;
        world.try_all(1, &compute).await;
        world
    }

    /// Has a service's consumer try what there is, in vain.
    async fn try_all(&self, consumer: usize, database: &Database) {
        let (spec, handler) = (CONSUMERS[consumer], Arc::new(Refusing));
        let mut consumer = Consumer::new(spec, database.clone(), self.bus.clone(), clock(), handler);
        let outcomes = consumer.round(Duration::ZERO).await.expect("a round");
        assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Outcome::Dead), "{outcomes:?}");
    }

    async fn edd(&self, arguments: &[&str]) -> Output {
        edd(&self.dir, arguments).await
    }
}

fn column(output: &Output, number: usize) -> Vec<&str> {
    let lines = output.ok().lines().skip(1);
    lines.map(|line| line.split("  ").filter(|cell| !cell.is_empty()).nth(number).unwrap_or_default().trim()).collect()
}

#[tokio::test]
async fn events_are_listed_by_what_is_known_of_them() {
    let world = World::new().await;
    let list = world.edd(&["events", "list"]).await;
    let header: Vec<_> = list.ok().lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["TIME", "STATUS", "SUBJECT", "VERSION", "HANDLED", "BY", "EVENT", "ID"]);
    let [created, deleted] = [format!("auth.user.{UID}.created"), format!("auth.user.{UID}.deleted")];
    let other = format!("auth.user.{OTHER}.created");
    assert_eq!(column(&list, 2), [&*deleted, &*other, &*created]);
    assert_eq!(column(&list, 1), ["published"; 3]);
    let entity = format!("auth.user.{UID}");
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--limit", "1"], &[&deleted]),
        (&["--entity", &entity], &[&deleted, &created]),
        (&["--correlation", "request-1"], &[&deleted, &created]),
        (&["--subject", "auth.user.*.created"], &[&other, &created]),
        (&["--since", "1h"], &[&deleted, &other, &created]),
        (&["--since", "2999-01-01T00:00:00Z"], &[]),
        (&["--status", "pending"], &[]),
        (&["--service", "sfs", "--status", "failed", "--subject", "auth.user.*.deleted"], &[&deleted]),
    ];
    for (flags, expected) in cases {
        assert_eq!(column(&world.edd(&[&["events", "list"], flags].concat()).await, 2), *expected, "{flags:?}");
    }
    let json = world.edd(&["events", "list", "--service", "sfs", "--json"]).await.json();
    let newest = &json["events"][0];
    assert_eq!((&json["service"], &newest["subject"]), (&json!("sfs"), &json!(deleted)));
    assert_eq!((&newest["status"], &newest["processed_by"]), (&json!("failed"), &json!("sfs-service")));
    assert_eq!((&newest["version"], &newest["correlation_id"]), (&json!(2), &json!("request-1")));
}

#[tokio::test]
async fn an_event_is_shown_with_its_content_and_its_trail() {
    let world = World::new().await;
    let listed =
        world.edd(&["events", "list", "--subject", &format!("auth.user.{UID}.created"), "--json"]).await.json();
    let id = listed["events"][0]["event_id"].as_str().expect("an id");
    let shown = world.edd(&["events", "show", id]).await;
    for told in
        [&format!("event        {id}"), "correlation  request-1", "published ", &format!("\"username\": \"ann {UID}\"")]
    {
        assert!(shown.ok().contains(told), "{told} is not in {shown:#?}");
    }
    let json = world.edd(&["events", "show", id, "--service", "compute", "--json"]).await.json();
    assert_eq!(json["event"]["payload"]["user_id"], UID);
    assert_eq!(json["event"]["payload"]["metadata"]["event_id"], id);
    let expected = json!(["failed", "compute-service", "no such user\nat all"]);
    assert_eq!(
        json!([json["trail"][0]["status"], json["trail"][0]["processed_by"], json["trail"][0]["error"]]),
        expected
    );
    let unknown = world.edd(&["events", "show", "018f-none"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(1), ""));
    assert!(
        unknown.stderr.contains("auth knows no event 018f-none") && unknown.stderr.contains("--service"),
        "{unknown:#?}"
    );
}

/// What another release publishes, or broke.
#[tokio::test]
async fn content_that_cannot_be_read_is_shown_as_it_is() {
    let world = World::new().await;
    let broken =
        "UPDATE event_log SET payload = $1 WHERE event_id IN (SELECT event_id FROM event_log WHERE version = 2)";
    let broken = sqlx::query(broken).bind(vec![0x0a_u8, 0xff]).execute(world.auth.writer()).await.expect("a change");
    assert_eq!(broken.rows_affected(), 1);
    let listed = world.edd(&["events", "list", "--json"]).await.json();
    let id = listed["events"][0]["event_id"].as_str().expect("an id");
    let shown = world.edd(&["events", "show", id]).await;
    assert!(shown.ok().contains("its content cannot be read: auth.UserDeleted: invalid protobuf: "), "{shown:#?}");
    assert!(shown.stdout.ends_with("\n0aff\n"), "{shown:#?}");
    let event = &world.edd(&["events", "show", id, "--json"]).await.json()["event"];
    assert_eq!((&event["payload"], &event["payload_hex"]), (&Value::Null, &json!("0aff")));
}

#[tokio::test]
async fn a_tail_follows_what_is_written() {
    let world = World::new().await;
    let following = async |flags: &[&str]| {
        let tail = Program::edd(&[&["events", "tail"], flags].concat()).dir(world.dir.path()).start();
        tail.stderr.wait("tail to follow", |lines| lines.first().cloned()).await;
        tail
    };
    let all = following(&[]).await;
    let few = following(&["--subject", "auth.user.*.deleted", "--limit", "2"]).await;
    let past = following(&["--since", "1h", "--limit", "6"]).await;
    fill(&world.auth).await;
    let lines = all.stdout.wait("three events", |lines| (lines.len() == 3).then(|| lines.to_vec())).await;
    assert!(lines[2].contains(&format!("  pending    auth.user.{UID}.deleted  v4  ")), "{lines:?}");
    fill(&world.auth).await;
    assert_eq!(few.output().await.ok().lines().count(), 2);
    let past = past.output().await;
    let subjects: Vec<_> = past.ok().lines().map(|line| line.split_whitespace().nth(2).expect("a subject")).collect();
    assert_eq!(subjects[..3], subjects[3..], "the old ones before the new ones");
    all.stdout.wait("six events", |lines| (lines.len() == 6).then_some(())).await;
    let json = world.edd(&["events", "tail", "--since", "1h", "--limit", "1", "--json"]).await;
    assert_eq!(json.json()["subject"], format!("auth.user.{UID}.created"));
    assert_eq!(json.stderr, "");
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown() {
    let world = World::new().await;
    let list = world.edd(&["dlq", "list"]).await;
    assert_eq!(column(&list, 0), ["sfs", "sfs", "sfs", "compute", "compute", "compute"]);
    assert_eq!(column(&list, 1), ["1", "2", "3", "1", "2", "3"]);
    assert_eq!(column(&list, 6), ["no such user…"; 6], "an error has a line");
    let cases: [(&[&str], usize); 5] = [
        (&["--service", "sfs"], 3),
        (&["--consumer", "compute-service"], 3),
        (&["--consumer", "gateway-service"], 0),
        (&["--limit", "2"], 4),
        (&["--state", "discarded"], 0),
    ];
    for (flags, expected) in cases {
        let output = world.edd(&[&["dlq", "list", "--json"], flags].concat()).await.json();
        assert_eq!(output["dead_letters"].as_array().map(Vec::len), Some(expected), "{flags:?}");
    }
    let shown = world.edd(&["dlq", "show", "1", "--service", "sfs"]).await;
    let created = format!("auth.user.{UID}.created");
    for told in ["dead letter  1 of sfs, dead", "sfs-service, of stream AUTH at 1", "no such user\nat all", &created] {
        assert!(shown.ok().contains(told), "{told} is not in {shown:#?}");
    }
    let json = world.edd(&["dlq", "show", "1", "--service", "sfs", "--json"]).await.json();
    assert_eq!((&json["sequence"], &json["attempts"]), (&json!(1), &json!(1)));
    assert_eq!(json["event"]["payload"]["user_id"], UID);
}

#[tokio::test]
async fn a_dead_letter_is_decided_about_once() {
    let world = World::new().await;
    let mut cases = Cases::default();
    for (arguments, told) in [
        (&["dlq", "requeue", "1"][..], "dead letter 1 is in sfs and in compute\nhint: name one with --service"),
        (&["dlq", "show", "9"], "there is no dead letter 9\nhint: `edd dlq list`"),
        (&["dlq", "discard", "9", "--service", "auth"], "there is no dead letter 9"),
    ] {
        let case = async {
            let output = world.edd(arguments).await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
            assert!(output.stderr.contains(told), "{output:#?}");
        };
        cases.case(&arguments.join(" "), case).await;
    }
    cases.finish();
    let sfs = async |verb: &str, id: &str| world.edd(&["dlq", verb, id, "--service", "sfs"]).await;
    assert_eq!(sfs("requeue", "1").await.ok(), "sfs-service tries dead letter 1 again within seconds, if it runs\n");
    assert_eq!(sfs("discard", "2").await.ok(), "dead letter 2 of sfs is given up\n");
    for (verb, id, state) in [("requeue", "1", "requeued"), ("discard", "1", "requeued"), ("requeue", "2", "discarded")]
    {
        let refused = sfs(verb, id).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
        assert!(
            refused.stderr.contains(&format!("dead letter {id} is {state}, and only one that is dead")),
            "{refused:#?}"
        );
    }
    // The consumer does what it was told: it tries the one, in vain.
    world.try_all(0, &world.sfs).await;
    let letter = dead_letter::find(&world.sfs, 1).await.expect("a database").expect("a letter");
    assert_eq!((letter.state, letter.attempts), (dead_letter::State::Dead, 2));
    let all = world.edd(&["dlq", "requeue", "--all", "--consumer", "sfs-service", "--json"]).await;
    assert_eq!(all.json(), json!({"consumer": "sfs-service", "requeued": 2}));
    for wrong in [
        &["dlq", "requeue"][..],
        &["dlq", "requeue", "--all"],
        &["dlq", "requeue", "1", "--consumer", "x"],
        &["dlq", "requeue", "--consumer", "x"],
    ] {
        assert_eq!(world.edd(wrong).await.code, Some(2), "{wrong:?}");
    }
}

const VERBS: [&[&str]; 7] = [
    &["events", "list"],
    &["events", "tail"],
    &["events", "show", "1"],
    &["dlq", "list"],
    &["dlq", "show", "1"],
    &["dlq", "requeue", "1"],
    &["dlq", "discard", "1"],
];

#[tokio::test]
async fn looking_makes_no_database() {
    let dir = Workdir::new();
    let data = dir.dir("data");
    for verb in VERBS {
        for service in [&[][..], &["--service", "sfs"]] {
            let output = edd(&dir, &[verb, service].concat()).await;
            assert_eq!((output.code, output.stdout.as_str()), (Some(69), ""), "{output:#?}");
            assert!(output.stderr.contains("hint: say where it is with --data-dir"), "{output:#?}");
        }
    }
    let missing = edd(&dir, &["events", "list", "--service", "compute"]).await;
    assert!(missing.stderr.contains("compute has no database: data/compute.db does not exist"), "{missing:#?}");
    assert_eq!(std::fs::read_dir(&data).expect("our own directory").count(), 0);
}

#[tokio::test]
async fn what_is_no_database_of_a_service_is_said_to_be_none() {
    let dir = Workdir::new();
    let data = dir.dir("data");
    std::fs::write(data.join("auth.db"), "").expect("our own directory");
    std::fs::write(data.join("sfs.db"), "no database, but a text that is long enough to have a header")
        .expect("a file");
    let empty = edd(&dir, &["events", "list"]).await;
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(69), ""));
    assert!(
        empty.stderr.contains("auth: it has no tables of a service") && empty.stderr.contains("hint: start"),
        "{empty:#?}"
    );
    let text = edd(&dir, &["dlq", "list", "--service", "sfs"]).await;
    assert_eq!((text.code, text.stdout.as_str()), (Some(69), ""));
    assert!(text.stderr.contains("the database of sfs"), "{text:#?}");
    let url = Program::edd(&["events", "list"]).env("AUTH_DATABASE_URL", "mysql://edd:secret@x/y").run().await;
    assert_eq!((url.code, url.stdout.as_str()), (Some(78), ""));
    assert!(url.stderr.contains("postgres://user@host/name") && !url.stderr.contains("secret"), "{url:#?}");
}

#[tokio::test]
async fn a_database_is_named_by_a_url_or_a_file_that_holds_it() {
    let url = Postgres::shared().database();
    let database = Database::open(&url, &[]).await.expect("a database");
    fill(&database).await;
    let dir = Workdir::new();
    let secret = dir.write("url", &format!("{url}\n"));
    let named = |name: &str, value: &str| Program::edd(&["events", "list"]).dir(dir.path()).env(name, value);
    let secret = Path::new(&secret).to_str().expect("a plain path");
    for (name, value) in [("AUTH_DATABASE_URL", &*url), ("AUTH_DATABASE_URL_FILE", secret), ("DATABASE_URL", &*url)] {
        let output = named(name, value).run().await;
        assert_eq!(column(&output, 1), ["pending"; 3], "{name}");
    }
    dir.write("edd.env", &format!("AUTH_DATABASE_URL={url}\n"));
    let by_file = Program::edd(&["events", "list"]).dir(dir.path()).run().await;
    assert_eq!(column(&by_file, 1).len(), 3);
    let gone =
        named("SFS_DATABASE_URL", "postgres://edd:secret@127.0.0.1:1/sfs").args(&["--service", "sfs"]).run().await;
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(69), ""), "{gone:#?}");
    assert!(gone.stderr.contains("the database of sfs") && !gone.stderr.contains("secret"), "{gone:#?}");
}
