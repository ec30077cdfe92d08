//! kill -9 between every two steps that an event takes: whoever was told that they are a user is one everywhere, and
//! every event has had its effect once.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use edd_events::bus::local::LocalBus;
use edd_events::clock::{Clock, ManualClock, SystemClock};
use edd_events::database::Database;
use edd_events::projection::{Replay, Source};
use edd_events::user_cache::{self, UserCache};
use edd_proto::Stream;
use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use rustix::process::Signal;

use crate::harness::{Deployment, Program, Role};

/// People who register before and after a crash.
const SOME: usize = 3;

/// Starts one process so that it dies at `point`, and has people register until it does.
async fn dies_at(deployment: &mut Deployment, role: Role, point: &str) {
    let (mut edd, is_ready) = deployment.builder(role).env("EDD_FAIL_POINT", point).launch().await;
    edd.may_exit();
    if !is_ready {
        assert_killed(point, edd.wait_exit().await);
        return;
    }
    deployment.run(role, edd);
    let rush = deployment.people().rush();
    let ended = deployment.process(role).wait_exit().await;
    rush.end().await;
    assert_killed(point, ended);
    deployment.forget(role);
}

#[track_caller]
fn assert_killed(point: &str, ended: ExitStatus) {
    assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()), "at {point} it ended otherwise: {ended:?}");
}

async fn some_register(deployment: &Deployment) {
    for _ in 0..SOME {
        deployment.register().await;
    }
}

/// The one process dies at `point`, and another goes on with what it left.
async fn dies_and_goes_on(point: &str) {
    let mut deployment = Deployment::single();
    dies_at(&mut deployment, Role::Up, point).await;
    deployment.start().await;
    some_register(&deployment).await;
    deployment.converged().await;
}

/// A test for each point in `edd up`. The first events are those of the first start.
macro_rules! points_of_one_process {
    ($($test:ident: $point:literal, $times:literal;)*) => {
        const ONE_PROCESS: &[&str] = &[$($point),*];
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            dies_and_goes_on(concat!($point, ":", $times)).await;
        })*
    };
}

points_of_one_process! {
    before_the_commit_of_a_change: "publisher.added", 5;
    before_an_event_is_published: "relay.read", 3;
    within_the_append_to_the_log: "local_bus.appended", 3;
    before_an_event_is_marked_as_published: "relay.published", 3;
    after_an_event_is_marked_as_published: "relay.marked", 3;
    before_the_handler: "consumer.delivered", 8;
    before_the_commit_of_the_effect: "consumer.handled", 8;
    before_the_answer: "consumer.committed", 8;
    within_the_answer: "local_bus.answered", 8;
    after_the_answer: "consumer.answered", 8;
    within_a_snapshot: "snapshot.page", 2;
}

/// The same with a broker and PostgreSQL, each service by itself.
#[tokio::test(flavor = "multi_thread")]
async fn separate_processes_die_and_go_on() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    for role in [Role::Auth, Role::Gateway] {
        deployment.start_one(role).await;
    }
    some_register(&deployment).await;
    dies_at(&mut deployment, Role::Sfs, "snapshot.page").await;
    // What was delivered and not answered comes again after thirty seconds: these two wait for it at the same time.
    dies_at(&mut deployment, Role::Sfs, "consumer.handled:2").await;
    deployment.start_one(Role::Sfs).await;
    dies_at(&mut deployment, Role::Compute, "consumer.committed:2").await;
    for point in ["consumer.answered:2", "consumer.delivered"] {
        dies_at(&mut deployment, Role::Compute, point).await;
    }
    deployment.start_one(Role::Compute).await;
    deployment.end(Role::Auth, Signal::TERM).await;
    for point in ["publisher.added:2", "relay.read", "relay.published", "relay.marked"] {
        dies_at(&mut deployment, Role::Auth, point).await;
    }
    deployment.start_one(Role::Auth).await;
    some_register(&deployment).await;
    deployment.converged().await;
}

/// Where [`replaying`] finds a service's data, and by how many hours its clock is ahead.
const REPLAYED: &str = "EDD_REPLAYED_DIR";
const HOURS: &str = "EDD_REPLAYED_HOURS";

/// Not a test by itself: what [`a_replay_is_there_as_a_whole_or_not_at_all`] starts, and kills.
#[tokio::test]
async fn replaying() {
    let Some(dir) = std::env::var_os(REPLAYED).map(PathBuf::from) else { return };
    let hours: i64 = std::env::var(HOURS).expect("its clock").parse().expect("a number");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(SystemClock.now() + hours * 3_600_000_000));
    let database = Database::open_file(&dir.join("sfs.db"), &[user_cache::STEP]).await.expect("a database");
    let bus = LocalBus::open(&dir.join("bus.db"), clock.clone()).await.expect("a bus");
    let replay = Replay::new(Arc::new(UserCache), Stream::AUTH, None, (database, Arc::new(bus), clock));
    replay.run(Some(Source::Stream), &mut |_| {}).await.expect("a replay");
}

async fn replay(data: &Path, point: &str, hours: u32) -> Option<i32> {
    let this = std::env::current_exe().expect("this program");
    let program = Program::new(this.to_str().expect("a plain path")).args(&["--exact", "events_crashes::replaying"]);
    let program = program.env(REPLAYED, data.to_str().expect("a plain path")).env("EDD_FAIL_POINT", point);
    let program = program.env(HOURS, &hours.to_string());
    program.run().await.code
}

#[tokio::test]
async fn a_replay_is_there_as_a_whole_or_not_at_all() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    some_register(&deployment).await;
    deployment.converged().await;
    let data = deployment.builder(Role::Up).path("data");
    for (point, is_right_after) in [("replay.swapping", false), ("replay.swapped", true), ("none", true)] {
        deployment.end(Role::Up, Signal::TERM).await;
        let database = Database::attach_file(&data.join("sfs.db")).await.expect("a database");
        let spoil = sqlx::query("UPDATE user_cache SET display_name = 'wrong'").execute(database.writer()).await;
        assert!(spoil.expect("a change").rows_affected() > SOME as u64);
        database.close().await;
        let code = replay(&data, point, 0).await;
        assert_eq!(code, Some(0).filter(|_| point == "none"), "{point}");
        let copy = deployment.copy("sfs").await.expect("a copy");
        let wrong = copy.iter().filter(|row| row.fields[1] == "wrong".into()).count();
        assert_eq!(wrong, if is_right_after { 0 } else { copy.len() }, "{point}: {copy:?}");
        if !is_right_after {
            // As soon as the one that died is taken for dead.
            assert_eq!(replay(&data, "none", 1).await, Some(0), "it can be run again");
        }
        deployment.start().await;
        some_register(&deployment).await;
        deployment.converged().await;
    }
}

/// The points that the tests above go through are those that there are.
#[test]
fn no_point_is_left_out() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("events/src");
    let mut found = BTreeSet::new();
    points(&sources, &mut found);
    let replay = ["replay.swapped", "replay.swapping"];
    let tried: BTreeSet<_> = ONE_PROCESS.iter().chain(&replay).map(|&point| point.to_owned()).collect();
    assert_eq!(found, tried);
}

fn points(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a readable directory");
        entries.for_each(|entry| points(&entry.expect("an entry").path(), found));
        return;
    }
    let text = std::fs::read_to_string(path).expect("a source");
    for call in text.split("fail_point!(\"").skip(1) {
        let name = call.split('"').next().expect("a name").to_owned();
        assert!(found.insert(name), "two points have one name: {call:.40}");
    }
}
