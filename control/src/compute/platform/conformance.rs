//! What every platform does alike. A platform's tests make a [`Machine`] of it and call [`suite!`].

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::{ContainerId, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{
    Exec, Exit, Input, LogQuery, Observed, Output, Phase, Platform, PlatformError, PullPolicy, Session, Size, Spec,
};

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(5);

/// A place where a platform's containers are.
#[async_trait]
pub(super) trait Machine: Send + Sync {
    /// An instance of the platform; never two at once.
    async fn open(&self) -> Arc<dyn Platform>;

    /// What there still is of a container besides its entry in the platform: processes, links, groups, mounts.
    fn leftovers(&self, id: ContainerId) -> Vec<String>;

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
    let mut stream = TcpStream::connect(address(observed)).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    answer
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

pub(super) async fn it_starts_answers_and_stops(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("a <name> of its owner's; $(touch /tmp/x) \u{202e}");
    platform.ensure(&spec).await.expect("made");
    assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    let observed = started(&platform, &spec).await;
    assert_eq!(platform.observe(spec.id).await.expect("observed"), Some(observed.clone()));
    assert_eq!(platform.list().await.expect("a list"), std::slice::from_ref(&observed));
    let answer = page(&observed).await;
    assert!(answer.contains(spec.id.as_str()) && answer.contains(&spec.name), "{answer}");
    for _ in 0..2 {
        within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
        let stopped = platform.observe(spec.id).await.expect("observed").expect("there");
        assert_eq!((stopped.phase, stopped.address), (Phase::Stopped, None));
    }
    // Where nobody has the address the machine asks for it for seconds.
    let again = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address(&observed))).await;
    assert!(!matches!(again, Ok(Ok(_))), "it still answers");
    nothing_is_left(machine, spec.id).await;
    assert!(page(&started(&platform, &spec).await).await.contains(spec.id.as_str()));
    end(machine, platform).await;
}

pub(super) async fn what_is_there_already_stays(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("first");
    let before = started(&platform, &spec).await;
    said(&platform, spec.id, "echo kept > $HOME/kept").await;
    let renamed = Spec { name: "second".to_owned(), ..spec.clone() };
    platform.ensure(&renamed).await.expect("changed");
    assert_eq!(platform.observe(spec.id).await.expect("observed"), Some(before.clone()), "a change restarts nothing");
    assert!(page(&before).await.contains("first"));
    assert_eq!(platform.start(spec.id).await.expect("runs"), before);
    platform.stop(spec.id, GRACE).await.expect("stopped");
    let after = started(&platform, &renamed).await;
    assert!(page(&after).await.contains("second"));
    assert_eq!(said(&platform, spec.id, "cat $HOME/kept").await, "kept\n");
    end(machine, platform).await;
}

pub(super) async fn two_starts_are_one(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (one, other) = (spec("one"), spec("other"));
    platform.ensure(&one).await.expect("made");
    platform.ensure(&other).await.expect("made");
    // One is cut off: what it began is not lost, and not begun twice.
    drop(tokio::time::timeout(Duration::ZERO, platform.start(one.id)).await);
    let starts = async {
        tokio::join!(platform.start(one.id), platform.start(one.id), platform.start(other.id), platform.start(other.id))
    };
    let (a, b, c, d) = within("starts", starts).await;
    let (a, c) = (a.expect("started"), c.expect("started"));
    assert_eq!((&a, &c), (&b.expect("started"), &d.expect("started")));
    assert!(a.phase == Phase::Running && c.phase == Phase::Running && address(&a) != address(&c), "{a:?} {c:?}");
    assert!(page(&a).await.contains("one") && page(&c).await.contains("other"));
    end(machine, platform).await;
}

pub(super) async fn what_is_unknown_is_not_found(machine: &dyn Machine) {
    let platform = machine.open().await;
    let id = ContainerId::random(&mut rand::rng());
    let not_found = || PlatformError::NotFound(id);
    assert_eq!(platform.start(id).await, Err(not_found()));
    assert_eq!(platform.stop(id, GRACE).await, Err(not_found()));
    assert_eq!(platform.pause(id).await, Err(not_found()));
    assert_eq!(platform.exec(id, shell("true")).await.map(drop), Err(not_found()));
    assert_eq!(platform.logs(id, LogQuery { tail: 1, follow: true }).await.map(drop), Err(not_found()));
    assert_eq!(platform.observe(id).await, Ok(None));
    assert_eq!(platform.delete(id).await, Ok(()));
    assert_eq!(platform.list().await, Ok(Vec::new()));
    end(machine, platform).await;
}

pub(super) async fn what_cannot_be_is_impossible(machine: &dyn Machine) {
    let platform = machine.open().await;
    let good = spec("good");
    let mount = |path: &str| Spec { mount_paths: vec![path.to_owned()], ..good.clone() };
    let wrong = [
        Spec { image: "no-such-image".to_owned(), ..good.clone() },
        Spec { image: "../default".to_owned(), ..good.clone() },
        Spec { memory_mb: 1, ..good.clone() },
        Spec { cpu_millis: 0, ..good.clone() },
        mount("/"),
        mount("/proc"),
        mount("relative"),
        mount("/root/../etc"),
    ];
    for spec in wrong {
        let error = platform.ensure(&spec).await.expect_err("it cannot be");
        assert!(matches!(error, PlatformError::Impossible(_)), "{spec:?}: {error:?}");
    }
    assert_eq!(platform.list().await, Ok(Vec::new()), "nothing is made of it");
    assert!(platform.images().await.expect("images").iter().any(|image| image.is_default));
    // The phase is the wrong one, not the container.
    platform.ensure(&good).await.expect("made");
    for error in [platform.exec(good.id, shell("true")).await.map(drop), platform.pause(good.id).await] {
        assert!(matches!(error, Err(PlatformError::WrongPhase(_))), "{error:?}");
    }
    end(machine, platform).await;
}

pub(super) async fn sessions_run_on_pipes(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("sessions");
    started(&platform, &spec).await;
    let mut echo = session(&platform, spec.id, shell("cat; echo aside >&2; exit 7")).await;
    echo.input.send(Input::Bytes("in and out".into())).await.expect("sent");
    // Its end of input.
    echo.input = tokio::sync::mpsc::channel(1).0;
    let ended = ("in and out".to_owned(), "aside\n".to_owned(), Exit::Code(7));
    assert_eq!(rest(&mut echo).await, ended);

    let environment = BTreeMap::from([("OWN".to_owned(), "mine".to_owned())]);
    let own = Exec { environment, ..shell("echo $OWN, $GREETING, $EDD_CONTAINER_ID") };
    let (stdout, ..) = rest(&mut session(&platform, spec.id, own).await).await;
    assert_eq!(stdout, format!("mine, hello there, {}\n", spec.id));

    let mut sleeper = session(&platform, spec.id, shell("echo ready; exec sleep 1000")).await;
    assert_eq!(sleeper.output.recv().await, Some(Output::Stdout("ready\n".into())));
    sleeper.input.send(Input::Signal("TERM".to_owned())).await.expect("sent");
    assert_eq!(rest(&mut sleeper).await.2, Exit::Signal("TERM".to_owned()));

    // What is left behind does not hold a session up.
    assert_eq!(said(&platform, spec.id, "sleep 1000 & echo gone").await, "gone\n");

    let unknown = Exec { command: vec!["/no/such/program".to_owned()], ..Exec::default() };
    let error = platform.exec(spec.id, unknown).await.map(drop);
    assert!(matches!(&error, Err(PlatformError::Impossible(why)) if why.contains("/no/such/program")), "{error:?}");
    let mut login = session(&platform, spec.id, Exec::default()).await;
    login.input.send(Input::Bytes("echo from a shell; exit 4\n".into())).await.expect("sent");
    let (stdout, _, exit) = rest(&mut login).await;
    assert!(stdout.contains("from a shell") && exit == Exit::Code(4), "{stdout} {exit:?}");
    end(machine, platform).await;
}

pub(super) async fn sessions_hold_back_what_is_not_read(machine: &dyn Machine) {
    const PIECES: usize = 200;
    let platform = machine.open().await;
    let spec = spec("pressure");
    started(&platform, &spec).await;
    let mut cat = session(&platform, spec.id, shell("cat")).await;
    let piece = bytes::Bytes::from(vec![b'x'; 30_000]);
    let mut sent = 0;
    // Nothing is read: at some point nothing more is taken.
    while tokio::time::timeout(Duration::from_millis(300), cat.input.send(Input::Bytes(piece.clone()))).await.is_ok() {
        sent += 1;
        assert!(sent < PIECES, "6 MB are held in memory");
    }
    let (input, whole) = (cat.input.clone(), piece.clone());
    cat.input = tokio::sync::mpsc::channel(1).0;
    let sending = tokio::spawn(async move {
        for _ in sent..PIECES {
            input.send(Input::Bytes(whole.clone())).await.expect("sent");
        }
    });
    let (stdout, _, exit) = rest(&mut cat).await;
    sending.await.expect("sent");
    assert_eq!((stdout.len(), exit), (PIECES * piece.len(), Exit::Code(0)));
    end(machine, platform).await;
}

pub(super) async fn sessions_run_on_a_terminal(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("terminal");
    started(&platform, &spec).await;
    let terminal = Some(Size { columns: 97, rows: 31 });
    let script = "trap 'stty size' WINCH; tty; stty size; echo ready; while :; do read -r line || sleep 0.01; done";
    let mut session = session(&platform, spec.id, Exec { terminal, ..shell(script) }).await;
    let mut seen = String::new();
    let more = async |session: &mut Session, seen: &mut String, until: &str| {
        while !seen.contains(until) {
            match within(until, session.output.recv()).await {
                Some(Output::Stdout(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} before {until:?} in {seen:?}"),
            }
        }
    };
    more(&mut session, &mut seen, "ready").await;
    assert!(seen.contains("/dev/pts/") && seen.contains("31 97"), "{seen}");
    session.input.send(Input::Resize(Size { columns: 50, rows: 20 })).await.expect("sent");
    session.input.send(Input::Bytes("\n".into())).await.expect("sent");
    more(&mut session, &mut seen, "20 50").await;
    // Ctrl-C is the terminal's to understand.
    session.input.send(Input::Bytes(vec![3].into())).await.expect("sent");
    let (_, _, exit) = rest(&mut session).await;
    assert!([Exit::Signal("INT".to_owned()), Exit::Code(130)].contains(&exit), "{exit:?}");
    end(machine, platform).await;
}

pub(super) async fn sessions_end_when_they_are_dropped(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("dropped");
    started(&platform, &spec).await;
    for terminal in [None, Some(Size { columns: 80, rows: 24 })] {
        let mut dropped = session(&platform, spec.id, Exec { terminal, ..shell("echo $$; exec sleep 1000") }).await;
        let Some(Output::Stdout(pid)) = dropped.output.recv().await else { panic!("no number") };
        let pid = String::from_utf8_lossy(&pid).trim().to_owned();
        let alive = format!("kill -0 {pid} 2>/dev/null && echo alive || echo ended");
        assert_eq!(said(&platform, spec.id, &alive).await, "alive\n");
        drop(dropped);
        until("an end", || said(&platform, spec.id, &alive), |said| said == "ended\n").await;
    }
    end(machine, platform).await;
}

pub(super) async fn logs_are_told_and_followed(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("logs");
    let observed = started(&platform, &spec).await;
    let mut following = platform.logs(spec.id, LogQuery { tail: 1000, follow: true }).await.expect("a log");
    let mut heard = Vec::new();
    let listens = format!(":{}", observed.http_port);
    let is_told = |lines: &[bytes::Bytes]| lines.iter().any(|line| String::from_utf8_lossy(line).ends_with(&listens));
    while !is_told(&heard) {
        heard.push(within("a line", following.recv()).await.expect("a line"));
    }
    assert!(heard.iter().all(|line| !line.contains(&b'\n')));
    let mut told = platform.logs(spec.id, LogQuery { tail: 1000, follow: false }).await.expect("a log");
    let mut lines = Vec::new();
    while let Some(line) = within("a line", told.recv()).await {
        lines.push(line);
    }
    assert!(is_told(&lines), "{lines:?}");
    let mut none = platform.logs(spec.id, LogQuery { tail: 0, follow: false }).await.expect("a log");
    assert_eq!(none.recv().await, None);
    platform.stop(spec.id, GRACE).await.expect("stopped");
    while within("the end of the log", following.recv()).await.is_some() {}
    end(machine, platform).await;
}

pub(super) async fn a_paused_container_does_nothing(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().can_pause {
        println!("NOT RUN: nothing can be paused here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = spec("paused");
    let running = started(&platform, &spec).await;
    for _ in 0..2 {
        platform.pause(spec.id).await.expect("paused");
        let paused = platform.observe(spec.id).await.expect("observed").expect("there");
        assert_eq!(paused, Observed { phase: Phase::Paused, ..running.clone() });
    }
    let mut waiting = tokio::spawn({
        let running = running.clone();
        async move { page(&running).await }
    });
    tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.expect_err("it answers");
    let refused = platform.exec(spec.id, shell("true")).await.map(drop);
    assert!(matches!(refused, Err(PlatformError::WrongPhase(_))), "{refused:?}");
    assert_eq!(platform.start(spec.id).await.expect("resumed"), running);
    assert!(waiting.await.expect("an answer").contains("paused"));
    platform.pause(spec.id).await.expect("paused");
    within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
    assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    started(&platform, &spec).await;
    platform.pause(spec.id).await.expect("paused");
    end(machine, platform).await;
}

pub(super) async fn mounted_directories_outlive_a_stop(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("volumes");
    started(&platform, &spec).await;
    said(&platform, spec.id, "echo kept > $HOME/file; echo lost > ${TMPDIR:-/tmp}/file").await;
    platform.stop(spec.id, GRACE).await.expect("stopped");
    started(&platform, &spec).await;
    let script = "cat $HOME/file; ls ${TMPDIR:-/tmp}";
    assert_eq!(said(&platform, spec.id, script).await, "kept\n");
    platform.delete(spec.id).await.expect("deleted");
    started(&platform, &spec).await;
    assert_eq!(said(&platform, spec.id, "ls $HOME").await, "", "they do not outlive a delete");
    end(machine, platform).await;
}

pub(super) async fn memory_is_limited(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().limits_memory {
        println!("NOT RUN: memory has no limit here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = spec("memory");
    started(&platform, &spec).await;
    // Without a line break tail(1) keeps all of it.
    let mut hog = session(&platform, spec.id, shell("head -c 400m /dev/zero | tail -n 1 | wc -c")).await;
    let mut counted = String::new();
    while let Some(output) = within("the end of a hog", hog.output.recv()).await {
        if let Output::Stdout(bytes) = output {
            counted.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(!counted.contains("419430400"), "400 MB found room in 96");
    // Whoever had to die: if it was the main process, its owner is told why.
    if let Phase::Failed(why) = phase(&platform, spec.id).await {
        assert!(why.contains("memory"), "{why}");
    }
    end(machine, platform).await;
}

pub(super) async fn processors_are_limited(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().limits_cpu {
        println!("NOT RUN: processors have no limit here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = Spec { cpu_millis: 200, ..spec("processors") };
    started(&platform, &spec).await;
    // The second line of times(1) is of what the shell started: user and system time, as in 0m0.210s.
    let script = "timeout 1 sh -c 'while :; do :; done' & timeout 1 sh -c 'while :; do :; done'; wait; times";
    let times = said(&platform, spec.id, script).await;
    let spent = |time: &str| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        minutes.parse::<f64>().expect("minutes") * 60.0 + seconds.parse::<f64>().expect("seconds")
    };
    let seconds: f64 = times.lines().nth(1).expect("two lines").split(' ').map(spent).sum();
    assert!((0.01..0.6).contains(&seconds), "{seconds} s of a processor in about one, with a limit of 0.2: {times}");
    end(machine, platform).await;
}

pub(super) async fn the_end_of_the_main_process_is_told(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("ending");
    started(&platform, &spec).await;
    let mut changes = platform.watch();
    drop(session(&platform, spec.id, shell(machine.kill_main())).await.output.recv().await);
    assert_eq!(within("a change", changes.recv()).await.expect("told"), spec.id);
    let ended = platform.observe(spec.id).await.expect("observed").expect("there");
    assert!(matches!(&ended.phase, Phase::Failed(why) if why.contains("main process")), "{ended:?}");
    assert_eq!(ended.address, None);
    nothing_is_left(machine, spec.id).await;
    page(&started(&platform, &spec).await).await;
    within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
    assert_eq!(within("a change", changes.recv()).await.expect("told"), spec.id);
    end(machine, platform).await;
}

pub(super) async fn a_new_instance_takes_over(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (runs, stays) = (spec("runs"), spec("stays"));
    let observed = started(&platform, &runs).await;
    platform.ensure(&stays).await.expect("made");
    let mut open = session(&platform, runs.id, shell("echo here; exec sleep 1000")).await;
    assert_eq!(open.output.recv().await, Some(Output::Stdout("here\n".into())));
    // As after a kill: nobody says goodbye.
    drop(platform);
    let platform = machine.open().await;
    assert_eq!(platform.list().await.expect("a list").len(), 2);
    assert_eq!(platform.observe(runs.id).await.expect("observed"), Some(observed.clone()));
    assert_eq!(phase(&platform, stays.id).await, Phase::Stopped);
    assert!(page(&observed).await.contains("runs"));
    assert_eq!(said(&platform, runs.id, "echo $EDD_CONTAINER_ID").await, format!("{}\n", runs.id));
    assert_eq!(platform.start(runs.id).await.expect("runs"), observed);
    let mut changes = platform.watch();
    drop(session(&platform, runs.id, shell(machine.kill_main())).await.output.recv().await);
    assert_eq!(within("a change", changes.recv()).await.expect("told"), runs.id);
    started(&platform, &runs).await;
    end(machine, platform).await;
}

pub(super) async fn a_deleted_container_leaves_nothing(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (gone, other) = (spec("gone"), spec("other"));
    let observed = started(&platform, &other).await;
    started(&platform, &gone).await;
    assert!(!machine.leftovers(gone.id).is_empty(), "a running container is not seen, so nothing would be");
    said(&platform, gone.id, "nohup setsid sleep 1000 > /dev/null 2>&1 & mkdir -p $HOME/a/b; echo x > $HOME/a/b/c")
        .await;
    for _ in 0..2 {
        within("a delete", platform.delete(gone.id)).await.expect("deleted");
        nothing_is_left(machine, gone.id).await;
        assert_eq!(platform.observe(gone.id).await.expect("observed"), None);
    }
    assert_eq!(platform.list().await.expect("a list"), std::slice::from_ref(&observed));
    page(&observed).await;
    end(machine, platform).await;
}

pub(super) async fn a_shutdown_stops_everything(machine: &dyn Machine) {
    let platform = machine.open().await;
    let specs = [spec("one"), spec("two"), spec("three")];
    for spec in &specs {
        started(&platform, spec).await;
    }
    within("a shutdown", platform.shutdown(GRACE)).await;
    for spec in &specs {
        nothing_is_left(machine, spec.id).await;
        platform.start(spec.id).await.expect_err("it is too late");
    }
    drop(platform);
    let platform = machine.open().await;
    for spec in &specs {
        assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    }
    end(machine, platform).await;
}
