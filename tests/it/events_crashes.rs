//! kill -9 between every two steps that an event takes: whoever was told that they are a user is one everywhere, and
//! every event has had its effect once.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use edd_events::database::Database;
use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use rustix::process::Signal;

use crate::harness::{Deployment, Output, Role, is_full_run};

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

/// A broker has a memory of its own, and several processes have several databases.
#[tokio::test(flavor = "multi_thread")]
async fn separate_processes_die_and_go_on() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    some_register(&deployment).await;
    deployment.converged().await;
    for point in ["consumer.answered:2", "consumer.committed:2"] {
        dies_of_some(&mut deployment, Role::Compute, point).await;
    }
    if is_full_run() {
        // What was delivered and had no effect comes again after thirty seconds.
        dies_of_some(&mut deployment, Role::Compute, "consumer.handled").await;
        dies_of_some(&mut deployment, Role::Sfs, "consumer.delivered").await;
        deployment.start_one(Role::Sfs).await;
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

/// How long a service may take to die of what one person's registration makes it do.
const DEATH: Duration = Duration::from_secs(3);
const MOST_PEOPLE: usize = 6;

/// A service dies at `point` when people register, which makes two events each. Those that come together share a
/// transaction, so that the second time a point is passed may take a second person.
async fn dies_of_some(deployment: &mut Deployment, role: Role, point: &str) {
    if deployment.is_running(role) {
        deployment.end(role, Signal::TERM).await;
    }
    let mut edd = deployment.builder(role).env("EDD_FAIL_POINT", point).start().await;
    edd.may_exit();
    for _ in 0..MOST_PEOPLE {
        deployment.register().await;
        if let Ok(status) = tokio::time::timeout(DEATH, edd.wait_exit()).await {
            return assert_killed(point, status);
        }
    }
    panic!("it does not die at {point}");
}

/// `edd events replay` beside the running service; it dies at `point`, if there is one of this name.
async fn replay(deployment: &mut Deployment, point: &str) -> Output {
    let replay = deployment.process(Role::Up).verb(&["events", "replay", "--service", "sfs", "--from", "stream"]);
    replay.env("EDD_DATA_DIR", "data").env("EDD_FAIL_POINT", point).run().await
}

#[tokio::test]
async fn a_replay_is_there_as_a_whole_or_not_at_all() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    some_register(&deployment).await;
    deployment.converged().await;
    let sfs = deployment.builder(Role::Up).path("data/sfs.db");
    let sfs = Database::attach_file(&sfs).await.expect("a database");
    let wrong = async |deployment: &Deployment| {
        let copy = deployment.copy("sfs").await.expect("a copy");
        (copy.iter().filter(|row| row.fields[1] == "wrong".into()).count(), copy.len())
    };
    for (point, is_right_after) in [("replay.swapping", false), ("replay.swapped", true)] {
        let spoil = sqlx::query("UPDATE user_cache SET display_name = 'wrong'").execute(sfs.writer()).await;
        assert!(spoil.expect("a change").rows_affected() > SOME as u64);
        let killed = replay(&mut deployment, point).await;
        assert_eq!(killed.code, None, "{point}: {killed:#?}");
        let (wrong_rows, rows) = wrong(&deployment).await;
        assert_eq!(wrong_rows, if is_right_after { 0 } else { rows }, "{point}");
        if !is_right_after {
            let refused = replay(&mut deployment, "none").await;
            assert_eq!(refused.code, Some(1), "{refused:#?}");
            assert!(refused.stderr.contains("another replay of user_cache is running"), "{refused:#?}");
            // A minute later.
            let expire = sqlx::query("UPDATE projections SET shadow_until = 0 WHERE shadow IS NOT NULL");
            assert_eq!(expire.execute(sfs.writer()).await.expect("a change").rows_affected(), 1);
        }
        replay(&mut deployment, "none").await.ok();
        assert_eq!(wrong(&deployment).await.0, 0, "{point}");
        some_register(&deployment).await;
        deployment.converged().await;
    }
    sfs.close().await;
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
