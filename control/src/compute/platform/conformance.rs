//! What every platform does alike. A platform's tests make a [`Machine`] of it and call [`suite!`].

mod life;
mod limits;
mod sessions;
mod ssh;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::{ContainerId, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) use self::life::*;
pub(super) use self::limits::*;
pub(super) use self::sessions::*;
pub(super) use self::ssh::*;
use super::{
    Control, Exec, Exit, Input, LogQuery, Observed, Output, Phase, Platform, PlatformError, PullPolicy, Session, Size,
    Spec,
};

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// A place where a platform's containers are, whose SSH servers are set up as [`sshd`] says.
#[async_trait]
pub(super) trait Machine: Send + Sync {
    /// An instance of the platform; never two at once.
    async fn open(&self) -> Arc<dyn Platform>;

    /// What there still is of a container besides its entry in the platform: processes, links, groups, mounts.
    fn leftovers(&self, id: ContainerId) -> Vec<String>;

    /// Containers have users besides root.
    fn has_users(&self) -> bool {
        true
    }

    /// Containers run in something else than edd's own processes.
    fn outlives_edd(&self) -> bool {
        false
    }

    /// A shell's script that kills the main process of the container that it runs in.
    fn kill_main(&self) -> &'static str;
}

/// Makes a test of each function of the suite. `$machine` is an expression for an `Option` of a machine; without one
/// the test says so and is over.
macro_rules! suite {
    ($machine:expr) => {
        $crate::compute::platform::conformance::suite! { @each $machine;
            it_starts_answers_and_stops,
            what_is_there_already_stays,
            two_starts_are_one,
            what_is_unknown_is_not_found,
            what_cannot_be_is_impossible,
            sessions_run_on_pipes,
            sessions_hold_back_what_is_not_read,
            sessions_run_on_a_terminal,
            sessions_end_when_they_are_dropped,
            sessions_run_as_users,
            gateways_log_in_by_ssh,
            logs_are_told_and_followed,
            a_paused_container_does_nothing,
            mounted_directories_outlive_a_stop,
            memory_is_limited,
            processors_are_limited,
            the_end_of_the_main_process_is_told,
            a_new_instance_takes_over,
            a_deleted_container_leaves_nothing,
            a_shutdown_stops_everything,
        }
    };
    (@each $machine:expr; $($name:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            match $machine {
                Some(machine) => $crate::compute::platform::conformance::$name(&machine).await,
                None => println!("NOT RUN: {}: this machine does not let the platform start", stringify!($name)),
            }
        }
    )+};
}
pub(super) use suite;

fn spec(name: &str) -> Spec {
    Spec {
        id: ContainerId::random(&mut rand::rng()),
        owner: UserId::random(&mut rand::rng()),
        name: name.to_owned(),
        image: "default".to_owned(),
        pull: PullPolicy::default(),
        memory_mb: 96,
        cpu_millis: 1000,
        storage_gb: 1,
        mount_paths: vec!["/root".to_owned()],
        environment: BTreeMap::from([("GREETING".to_owned(), "hello there".to_owned())]),
    }
}

async fn within<T>(what: &str, action: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, action).await;
    done.unwrap_or_else(|_| panic!("{what} takes more than {PATIENCE:?}"))
}

/// A container that runs.
async fn started(platform: &Arc<dyn Platform>, spec: &Spec) -> Observed {
    platform.ensure(spec).await.expect("made");
    let observed = within("a start", platform.start(spec.id)).await.expect("started");
    assert_eq!(observed.phase, Phase::Running, "{observed:?}");
    observed
}

async fn phase(platform: &Arc<dyn Platform>, id: ContainerId) -> Phase {
    platform.observe(id).await.expect("observed").expect("a container").phase
}

fn address(observed: &Observed) -> SocketAddr {
    (observed.address.expect("an address"), observed.http_port).into()
}

/// What a container answers to `GET /`.
async fn page(observed: &Observed) -> String {
    let page = within("an answer", reply(observed)).await.expect("an answer");
    assert!(page.starts_with("HTTP/1.") && page.contains(" 200 "), "{page}");
    page
}

async fn reply(observed: &Observed) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address(observed)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn shell(script: &str) -> Exec {
    Exec { command: ["sh", "-c", script].map(str::to_owned).to_vec(), ..Exec::default() }
}

async fn session(platform: &Arc<dyn Platform>, id: ContainerId, exec: Exec) -> Session {
    within("a session's begin", platform.exec(id, exec)).await.expect("a session")
}

/// All that a session says until it ends.
async fn rest(session: &mut Session) -> (String, String, Exit) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match within("output", session.output.recv()).await.expect("an exit before the end") {
            Output::Stdout(bytes) => stdout.extend(bytes),
            Output::Stderr(bytes) => stderr.extend(bytes),
            Output::Exit(exit) => {
                assert_eq!(session.output.recv().await, None, "an exit is the last");
                return (text(stdout), text(stderr), exit);
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// What a script says that must succeed.
async fn said(platform: &Arc<dyn Platform>, id: ContainerId, script: &str) -> String {
    let (stdout, stderr, exit) = rest(&mut session(platform, id, shell(script)).await).await;
    assert_eq!(exit, Exit::Code(0), "{script}: {stdout}{stderr}");
    stdout
}

/// Asks until `is_so`.
async fn until<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, is_so: impl Fn(&T) -> bool) -> T {
    within(what, async {
        loop {
            let answer = ask().await;
            if is_so(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn nothing_is_left(machine: &dyn Machine, id: ContainerId) {
    let left = machine.leftovers(id);
    assert!(left.is_empty(), "{left:?}");
}

/// Removes what a test made.
async fn end(machine: &dyn Machine, platform: Arc<dyn Platform>) {
    for observed in platform.list().await.expect("a list") {
        within("a delete", platform.delete(observed.id)).await.expect("deleted");
        nothing_is_left(machine, observed.id).await;
    }
    platform.shutdown(GRACE).await;
}
