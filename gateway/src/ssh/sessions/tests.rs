use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use edd_events::clock::ManualClock;
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access_log::AccessLog;
use crate::containers::tests::scene::{ANN, BEN, NOW, Scene, fingerprint, id, key, record, user};
use crate::containers::{Change, KeyChange, Origin, Record};
use crate::live::{SshAccess, Status};
use crate::route::Authority;
use crate::ssh::admission::{Admission, Run};
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::recording::{self, MAX_FILE_BYTES, Recorded};
use crate::ssh::session_events::{Begun, ChannelKind, Direction, Forward, TerminalSize};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// Where audit lines go.
struct Lines(SyncSender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Plane {
    scene: Scene,
    sessions: Sessions,
    clock: ManualClock,
    registry: Registry,
    log: AccessLog,
    lines: Receiver<Vec<u8>>,
    dir: tempfile::TempDir,
}

/// Ann's first container, with SSH on.
fn open_container(version: i64, status: Status) -> Record {
    Record { ssh: Some(SshAccess::default()), ..record(1, version, status, 80) }
}

impl Plane {
    /// Ann has the containers 1 and 2 and the keys 1 and 2; the first container runs.
    fn new() -> Self {
        let (scene, registry, clock) = (Scene::new(), Registry::new(), ManualClock::at(NOW));
        let metrics = Metrics::on(&registry).unwrap();
        let (sink, lines) = sync_channel(1000);
        let log = AccessLog::start(Some(Box::new(Lines(sink))), scene.metrics.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(recording::Config {
            dir: dir.path().to_owned(),
            recorded: Recorded::Containers([id(1)].into()),
            max_file_bytes: MAX_FILE_BYTES,
            clock: Arc::new(clock.clone()),
            lost: metrics.recording_lost.clone(),
        });
        let sessions = Sessions::new(Config {
            watches: scene.containers.watches().clone(),
            audit: Audit::new(log.clone()),
            recorder: Some(recorder.unwrap()),
            metrics,
            clock: Arc::new(clock.clone()),
            max_per_user: 3,
        });
        scene.hear_key(key(1, 1, ANN, fingerprint(1)));
        scene.hear_key(key(2, 1, ANN, fingerprint(2)));
        scene.hear(open_container(1, Status::Running));
        scene.hear(Record { ssh: Some(SshAccess::default()), ..record(2, 1, Status::Running, 80) });
        scene.containers.set_complete();
        scene.containers.ssh_keys().set_complete();
        Self { scene, sessions, clock, registry, log, lines, dir }
    }

    fn login(number: u128, owner: &str, way: Way) -> LoggedIn {
        let admission = Admission {
            owner: user(owner),
            key_id: 1,
            fingerprint: fingerprint(1),
            way,
            run: Run::default(),
            revoked: CancellationToken::new(),
        };
        LoggedIn {
            session: Uuid::from_u128(number),
            admission,
            username: "c000000001".to_owned(),
            peer: PEER,
            client: "SSH-2.0-OpenSSH_9.2".to_owned(),
            took: Duration::from_millis(30),
            kill: KillSwitch::default(),
        }
    }

    /// Ann's session in the first container, by the first key: it is in.
    fn begin(&self, number: u128) -> Began {
        let session = self.begin_as(number, Way::Container { id: id(1), user: "root".to_owned() });
        self.settle(&session);
        session
    }

    /// The session comes to the run that the first container has now.
    fn settle(&self, session: &Began) {
        session.run.settle(self.scene.live(1).unwrap().backend().unwrap().life());
    }

    fn begin_as(&self, number: u128, way: Way) -> Began {
        let login = Self::login(number, ANN, way);
        let (kill, revoked) = (login.kill.clone(), login.admission.revoked.clone());
        let run = login.admission.run.clone();
        Began { log: self.sessions.began(login).unwrap(), kill, run, revoked }
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap().lines().any(|known| known == line)
    }

    /// The audit so far, without times.
    fn audit(&self) -> Vec<Value> {
        self.log.flush(Duration::from_secs(20));
        let text = String::from_utf8(self.lines.try_iter().flatten().collect()).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            let line = line.as_object_mut().unwrap();
            assert!(line.remove("ts").unwrap().as_str().unwrap().ends_with('Z'));
            assert_eq!(line.remove("listener").unwrap(), "ssh");
        }
        lines
    }
}

/// A session that has begun.
struct Began {
    log: Arc<dyn SessionLog>,
    kill: KillSwitch,
    run: Run,
    revoked: CancellationToken,
}

impl Began {
    /// Why it is to end; none: it goes on.
    async fn end(&self) -> Option<&'static str> {
        assert_eq!(self.kill.is_asked(), self.revoked.is_cancelled());
        if self.kill.is_asked() { Some(self.kill.asked().await.word) } else { None }
    }
}

/// What becomes of a session at once when `change` is published.
async fn after<T>(change: impl FnOnce(&Scene) -> T) -> Option<&'static str> {
    let plane = Plane::new();
    let session = plane.begin(1);
    assert_eq!(session.end().await, None);
    change(&plane.scene);
    session.end().await
}

fn hear(record: Record) -> impl FnOnce(&Scene) {
    move |scene| assert_eq!(scene.hear(record), 1)
}

fn ssh(access: Option<SshAccess>) -> impl FnOnce(&Scene) {
    hear(Record { ssh: access, ..record(1, 2, Status::Running, 80) })
}

fn only(keys: &[i64]) -> Option<SshAccess> {
    Some(SshAccess { only_keys: Some(keys.into()), ..SshAccess::default() })
}

#[tokio::test]
async fn whatever_would_refuse_the_login_now_ends_it_at_once() {
    let gone = KeyChange::Gone { id: 1, version: 2 };
    assert_eq!(after(|scene| scene.hear_key(gone)).await, Some("unknown_key"));
    assert_eq!(after(ssh(None)).await, Some("ssh_off"));
    assert_eq!(after(ssh(only(&[2]))).await, Some("key_not_chosen"));
    assert_eq!(after(ssh(only(&[]))).await, Some("key_not_chosen"));
    assert_eq!(after(hear(open_container(2, Status::Stopped))).await, Some("container_stopped"));
    assert_eq!(after(hear(open_container(2, Status::Hibernated))).await, Some("container_asleep"));
    assert_eq!(after(hear(open_container(2, Status::Failed))).await, Some("container_failed"));
    assert_eq!(after(hear(open_container(2, Status::Starting))).await, Some("container_restarted"));
    let moved = Record { address: Authority::parse("10.0.0.1:80").ok(), ..open_container(2, Status::Running) };
    assert_eq!(after(hear(moved)).await, Some("container_restarted"));
    let given_away = Record { owner: user(BEN), ..open_container(2, Status::Running) };
    assert_eq!(after(hear(given_away)).await, Some("not_the_owner"));
    let gone = Change::Gone { id: id(1), version: 2 };
    let deleted = |scene: &Scene| scene.containers.apply([gone], Origin::Event(2));
    assert_eq!(after(deleted).await, Some("unknown_container"));
    assert_eq!(after(|scene| scene.containers.delete_users([user(ANN)])).await, Some("unknown_container"));
    let lost = |scene: &Scene| scene.containers.retain(&[id(2)].into(), 9);
    assert_eq!(after(lost).await, Some("unknown_container"), "the database lacks it");
    let lost = |scene: &Scene| scene.containers.ssh_keys().retain(&[2].into(), 9);
    assert_eq!(after(lost).await, Some("unknown_key"));
}

#[tokio::test]
async fn what_does_not_concern_a_session_leaves_it_alone() {
    assert_eq!(after(ssh(only(&[1]))).await, None, "its key is among the chosen");
    let settings = Record { https_enabled: false, ..open_container(2, Status::Running) };
    assert_eq!(after(hear(settings)).await, None);
    assert_eq!(after(|scene| scene.hear_key(KeyChange::Gone { id: 2, version: 2 })).await, None);
    assert_eq!(after(hear(record(2, 2, Status::Stopped, 80))).await, None);
    assert_eq!(after(|scene| scene.containers.delete_users([user(BEN)])).await, None);
    // The user has the key under another number too.
    let another = |scene: &Scene| {
        scene.hear_key(key(3, 1, ANN, fingerprint(1)));
        scene.hear_key(KeyChange::Gone { id: 1, version: 2 });
    };
    assert_eq!(after(another).await, None);
}

#[tokio::test]
async fn a_login_waits_for_a_container_that_wakes_up_and_ends_when_it_sleeps_again() {
    let plane = Plane::new();
    plane.scene.hear(open_container(2, Status::Stopped));
    let session = plane.begin_as(1, Way::Container { id: id(1), user: "root".to_owned() });
    let before = [Status::Starting, Status::Running, Status::Hibernated, Status::Starting, Status::Running];
    for (version, status) in (3..).zip(before) {
        plane.scene.hear(open_container(version, status));
        assert_eq!(session.end().await, None, "{status:?}");
    }
    plane.settle(&session);
    plane.scene.hear(open_container(8, Status::Running));
    assert_eq!(session.end().await, None);
    plane.scene.hear(open_container(9, Status::Hibernated));
    assert_eq!(session.end().await, Some("container_asleep"));
}

#[tokio::test]
async fn a_login_that_waits_is_revoked_like_any() {
    let plane = Plane::new();
    plane.scene.hear(open_container(2, Status::Hibernated));
    let session = plane.begin_as(1, Way::Container { id: id(1), user: "root".to_owned() });
    plane.scene.hear_key(KeyChange::Gone { id: 1, version: 2 });
    assert_eq!(session.end().await, Some("unknown_key"));
}

#[tokio::test]
async fn what_changed_between_admission_and_beginning_is_not_missed() {
    let plane = Plane::new();
    plane.scene.hear_key(KeyChange::Gone { id: 1, version: 2 });
    assert_eq!(plane.begin(1).end().await, Some("unknown_key"));
}

#[tokio::test]
async fn a_jump_ends_with_its_key_and_with_what_it_leads_to() {
    let plane = Plane::new();
    let jump = plane.begin_as(1, Way::Jump);
    let channel = |number| jump.log.opened(ChannelKind::Jump { container: id(number).to_string() });
    drop(channel(1));
    let second = channel(2);
    plane.scene.hear(record(1, 2, Status::Running, 80));
    assert_eq!(jump.end().await, None, "its channel there is closed");
    let listed = plane.sessions.list(Which::Container(id(2)), None, 10).0;
    assert_eq!((listed.len(), &listed[0].jumps, listed[0].container), (1, &vec![id(2)], None));
    plane.scene.hear(record(2, 2, Status::Running, 80));
    assert_eq!(jump.end().await, Some("ssh_off"));
    drop(second);
    let jump = plane.begin_as(2, Way::Jump);
    plane.scene.hear_key(KeyChange::Gone { id: 1, version: 2 });
    assert_eq!(jump.end().await, Some("unknown_key"));
}

#[tokio::test]
async fn a_user_has_only_so_many() {
    let plane = Plane::new();
    let open: Vec<_> = (1..=3).map(|number| plane.begin(number)).collect();
    let way = Way::Container { id: id(1), user: "root".to_owned() };
    let refused = plane.sessions.began(Plane::login(4, ANN, way.clone())).unwrap_err();
    assert_eq!(refused.reason, "too_many_sessions");
    assert_eq!(refused.message, "you have 3 sessions open already, and may have 3; end one first");
    assert!(plane.sessions.began(Plane::login(5, BEN, way)).is_ok(), "others have their own");
    open[0].log.ended("client");
    plane.begin(6);
    assert!(plane.metric("edd_ssh_sessions_total{result=\"admitted\"} 5"));
    assert!(plane.metric("edd_ssh_auth_failures_total{reason=\"too_many_sessions\"} 1"));
    drop(open);
    assert!(plane.sessions.is_empty() && plane.sessions.open().per_user.is_empty());
    assert!(plane.metric("edd_ssh_sessions_open 0"));
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_killed() {
    let plane = Plane::new();
    let all: Vec<_> = [3, 1, 2].map(|number| plane.begin(number)).into_iter().collect();
    let channel = all[1].log.opened(ChannelKind::Session);
    channel.passed(Direction::ToContainer, b"12");
    channel.passed(Direction::ToClient { is_stderr: false }, b"123");
    plane.clock.advance(Duration::from_millis(1500));
    let page = |which, after: Option<u128>, most| {
        let (listed, more) = plane.sessions.list(which, after.map(Uuid::from_u128), most);
        (listed.iter().map(|it| it.id.parse::<Uuid>().unwrap().as_u128()).collect::<Vec<_>>(), more)
    };
    assert_eq!(page(Which::All, None, 2), (vec![1, 2], true));
    assert_eq!(page(Which::All, Some(2), 2), (vec![3], false));
    assert_eq!(page(Which::User(user(BEN)), None, 9), (vec![], false));
    assert_eq!(page(Which::Session(Uuid::from_u128(2)), None, 9), (vec![2], false));
    let first = serde_json::to_value(&plane.sessions.list(Which::All, None, 1).0[0]).unwrap();
    let expected = json!({
        "id": "00000000-0000-0000-0000-000000000001", "user": ANN, "container": "c000000001", "jumps": [],
        "login": "c000000001", "key_id": 1, "fingerprint": fingerprint(1), "peer": "192.0.2.7",
        "client": "SSH-2.0-OpenSSH_9.2", "since": "2024-01-22T11:46:40.000Z", "duration_ms": 1500,
        "channels": 1, "bytes_in": 2, "bytes_out": 3,
    });
    assert_eq!(first, expected);
    assert_eq!(plane.sessions.kill(Which::Session(Uuid::from_u128(9))), 0);
    assert_eq!(plane.sessions.kill(Which::Session(Uuid::from_u128(3))), 1);
    let words = |session: &Began| session.kill.is_asked();
    assert_eq!(all.iter().map(words).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(all[0].kill.asked().await.word, "killed");
    assert_eq!(plane.sessions.kill(Which::Container(id(1))), 3);
    assert_eq!(plane.sessions.kill(Which::User(user(ANN))), 3);
}

#[tokio::test]
async fn everything_is_told_once() {
    let plane = Plane::new();
    let session = plane.begin(1);
    let shell = session.log.opened(ChannelKind::Session);
    shell.terminal(TerminalSize { columns: 80, rows: 24 });
    shell.began(Begun::Shell);
    shell.passed(Direction::ToClient { is_stderr: false }, b"prompt");
    shell.passed(Direction::ToContainer, b"secret");
    let command = session.log.opened(ChannelKind::Session);
    command.began(Begun::Command("x".repeat(5000)));
    let forward = session.log.opened(ChannelKind::DirectTcpIp { host: "localhost".to_owned(), port: 5432 });
    session.log.forwarded(&Forward::Tcp { address: "0.0.0.0".to_owned(), port: 8080 });
    drop((shell, command, forward));
    plane.clock.advance(Duration::from_secs(2));
    session.log.ended("client");
    session.log.ended("again");
    drop(session);
    let refusal = Refusal::new("unknown_key", "the SSH key was deleted");
    let key = Some("SHA256:x".to_owned());
    plane.sessions.turned_away(&TurnedAway { peer: PEER, username: "root", fingerprint: key, refusal: &refusal });

    let of = |event: &str, more: Value| {
        let mut line = json!({
            "event": event, "session": "00000000-0000-0000-0000-000000000001", "user": ANN, "container": "c000000001",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let login = json!({
        "client_ip": "192.0.2.7", "login": "c000000001", "key_id": 1, "fingerprint": fingerprint(1),
        "client": "SSH-2.0-OpenSSH_9.2", "duration_ms": 30,
    });
    let end = json!({ "channels": 3, "bytes_in": 6, "bytes_out": 6, "duration_ms": 2000, "reason": "client" });
    let expected = [
        of("ssh_login", login),
        of("ssh_channel", json!({ "channel": "shell" })),
        of("ssh_channel", json!({ "channel": "command", "target": "x".repeat(1024) })),
        of("ssh_channel", json!({ "channel": "direct_tcpip", "target": "localhost", "port": 5432 })),
        of("ssh_forward", json!({ "target": "0.0.0.0", "port": 8080 })),
        of("ssh_end", end),
        json!({
            "event": "ssh_refused", "client_ip": "192.0.2.7", "login": "root", "fingerprint": "SHA256:x",
            "reason": "unknown_key",
        }),
    ];
    assert_eq!(plane.audit(), expected);
    for line in [
        "edd_ssh_sessions_total{result=\"admitted\"} 1",
        "edd_ssh_sessions_total{result=\"refused\"} 1",
        "edd_ssh_auth_failures_total{reason=\"unknown_key\"} 1",
        "edd_ssh_channels_total{kind=\"session\"} 2",
        "edd_ssh_channels_total{kind=\"direct_tcpip\"} 1",
        "edd_ssh_bytes_total{direction=\"to_container\"} 6",
        "edd_ssh_bytes_total{direction=\"to_client\"} 6",
        "edd_ssh_login_duration_seconds_count 1",
        "edd_ssh_sessions_open 0",
    ] {
        assert!(plane.metric(line), "{line}");
    }
}

#[tokio::test]
async fn a_terminal_is_recorded_and_what_is_typed_is_not() {
    let plane = Plane::new();
    let session = plane.begin(1);
    let shell = session.log.opened(ChannelKind::Session);
    shell.terminal(TerminalSize { columns: 80, rows: 24 });
    shell.began(Begun::Shell);
    shell.passed(Direction::ToClient { is_stderr: false }, b"prompt");
    shell.passed(Direction::ToContainer, b"secret");
    let copy = session.log.opened(ChannelKind::Session);
    copy.began(Begun::Subsystem("sftp".to_owned()));
    copy.passed(Direction::ToClient { is_stderr: false }, b"bytes");
    drop((shell, copy));
    let folder = plane.dir.path().join("c000000001");
    let text = || {
        let files: Vec<_> = std::fs::read_dir(&folder).ok()?.map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "a copy has no terminal");
        std::fs::read_to_string(&files[0]).ok().filter(|text| text.lines().count() == 2)
    };
    let since = std::time::Instant::now();
    let text = loop {
        if let Some(text) = text() {
            break text;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "no recording");
        tokio::task::yield_now().await;
    };
    assert!(text.ends_with("[0.0,\"o\",\"prompt\"]\n"), "{text}");
}
