//! Clients that do not read, peers that die, bytes that are no SSH, and a container that sleeps.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tenancy::newcomer;
use super::transfer::Transfer;
use crate::harness::traces::processes;
use crate::harness::{Deployment, LogLine, Role, Tenant, until, within};

/// Clients that stop reading.
const STALLED: u64 = 8;
/// What the gateway may hold for each: a window of each side, on its way in and on its way out.
const STALLED_KIB: u64 = 8 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_take_no_memory() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (_tenant, _, site, _) = newcomer(&deployment).await;
    let gateway = deployment.gateway();
    // Whatever is allocated once, is.
    let pull = async || site.ssh(&["gw", "head -c 20000000 /dev/zero | wc -c; head -c 20000000 /dev/zero"]);
    let warm = |text: &str| assert!(text.starts_with("20000000"), "{} bytes", text.len());
    warm(pull().await.run().await.ok());
    let before = gateway.resident_kib();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let transfer = Transfer::begin(&site).await;
        transfer.freeze();
        stalled.push(transfer);
    }
    warm(pull().await.run().await.ok());
    let full = gateway.resident_kib();
    let taken = full.saturating_sub(before);
    assert!(taken < STALLED * STALLED_KIB, "{taken} KiB more for {STALLED} clients that do not read");
    // While others are served, nothing more piles up for them.
    for _ in 0..3 {
        warm(pull().await.run().await.ok());
    }
    let grown = gateway.resident_kib().saturating_sub(full);
    // What the allocator keeps of three transfers of 20 MB is less, and what would pile up in a second more.
    assert!(grown < 2 * STALLED_KIB, "{grown} KiB more later on, after {taken} KiB at first");
    assert!(stalled.iter_mut().all(Transfer::is_running), "they are waited for");
    drop(stalled);
    deployment.stop().await;
}

/// kill -9 of either end: the other is told, and all goes on afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_death_in_mid_transfer_is_noticed_at_either_end() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (user, made, site) = {
        let (tenant, made, site, _) = newcomer(&deployment).await;
        let mut transfer = Transfer::begin(&site).await;
        for process in processes(&made.id, None) {
            // One that has ended already is as dead as it should be.
            let _ = kill_process(pid(process), Signal::KILL);
        }
        transfer.ends_at_once("the container's death", site.port, false).await;
        assert_ne!(transfer.exit().expect("it ended").code(), Some(0));
        tenant.until_status(&made.id, "running").await;
        (tenant.user.clone(), made, site)
    };
    site.until_login().await;
    let mut transfer = Transfer::begin(&site).await;
    let host_key = site.host_key.clone();
    deployment.process(Role::Up).signal(Signal::KILL);
    transfer.ends_at_once("the gateway's death", site.port, false).await;
    assert_ne!(transfer.exit().expect("it ended").code(), Some(0));
    deployment.process(Role::Up).wait_exit().await;
    deployment.forget(Role::Up);
    deployment.set(Role::Up, "EDD_SSH_LISTEN", &format!("127.0.0.1:{}", site.port));
    deployment.start().await;
    site.until_login().await;
    assert_eq!(site.scan(), host_key, "it shows the host key that clients know");
    let tenant = Tenant { gateway: deployment.gateway(), user };
    tenant.until_known().await;
    tenant.done(&format!("DELETE /compute/containers/{}", made.id), Value::Null).await;
    tenant.until_gone(&made.id).await;
    deployment.stop().await;
}

/// The container has no server that lets the gateway in, and compute, which runs what is asked for, is killed: while it
/// is about to begin one program, and while another one runs. Both are told, and the next login finds all as it was.
#[tokio::test(flavor = "multi_thread")]
async fn compute_dies_while_it_begins_a_session() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    let (site, mut runs, begins) = {
        let (_tenant, _, site, _) = newcomer(&deployment).await;
        let control = site.dir().join("ctl").display().to_string();
        let runs = site.ssh(&["-M", "-S", &control, "gw", "echo in; sleep 1000"]).start();
        runs.stdout.wait("a session", |lines| lines.first().map(|line| assert_eq!(line, "in"))).await;
        // It takes the order, and never comes to it.
        kill_process(pid(deployment.process(Role::Compute).pid()), Signal::STOP).expect("it runs");
        let begins = site.ssh(&["-S", &control, "gw", "echo never"]).start();
        let is_asked = |line: &LogLine| line.field("event") == "ssh_channel" && line.field("target") == "echo never";
        deployment.gateway().wait_log("an order", is_asked).await;
        (site, runs, begins)
    };
    assert!(runs.is_running(), "compute is slow, and not gone");
    deployment.end(Role::Compute, Signal::KILL).await;
    let begun = begins.output().await;
    assert_eq!((begun.code, begun.stdout.as_str()), (Some(126), ""), "{begun:?}");
    assert!(begun.stderr.contains("edd: "), "it is told why: {begun:?}");
    let ran = runs.output().await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("lost sight of the program"), "{ran:?}");
    deployment.start_one(Role::Compute).await;
    site.until_login().await;
    deployment.stop().await;
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(process.cast_signed()).expect("no process is 0")
}

/// A container that sleeps is woken by who may log in, and by nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_wakes_a_container() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (tenant, made, site, _) = newcomer(&deployment).await;
    let sleep = async || {
        tenant.done(&format!("POST /compute/containers/{}/hibernate", made.id), Value::Null).await;
        tenant.until_status(&made.id, "hibernated").await;
    };
    sleep().await;
    let refused = site.ssh(&["-o", "PreferredAuthentications=none", "gw", "true"]).run().await;
    assert_eq!(refused.code, Some(255), "{refused:?}");
    assert_eq!(tenant.container(&made.id).await["status"], "hibernated", "nobody has logged in");
    assert_eq!(site.ssh(&["gw", "echo in"]).run().await.ok(), "in\n");
    assert_eq!(tenant.container(&made.id).await["status"], "running");
    // Several come at once.
    sleep().await;
    let logins = (0..5).map(|_| site.ssh(&["gw", "echo in"]).run());
    for output in futures_util::future::join_all(logins).await {
        assert_eq!(output.ok(), "in\n");
    }
    deployment.stop().await;
}

/// Who is in uses the container, even if nothing is said and however soon it falls asleep otherwise; who has left does
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_its_container_awake() {
    // Until a report of use is of the past, and compute has looked.
    const FALLS_ASLEEP_WITHIN: Duration = Duration::from_secs(60);
    let mut deployment = Deployment::single();
    // Shorter than the time between two reports of what is in use.
    deployment.set_all("EDD_IDLE_SECONDS", "2");
    deployment.start().await;
    let ((in_use, made, site, _), (tenant, left, left_site, _)) =
        tokio::join!(newcomer(&deployment), newcomer(&deployment));
    let mut session = site.ssh(&["gw", "echo in; sleep 1000"]).start();
    session.stdout.wait("a session", |lines| lines.first().map(|line| assert_eq!(line, "in"))).await;
    assert_eq!(left_site.ssh(&["gw", "echo in"]).run().await.ok(), "in\n");
    let status = async |tenant: &Tenant<'_>, id| tenant.container(id).await["status"].clone();
    let falling_asleep = async {
        while status(&tenant, &left.id).await != "hibernated" {
            assert_eq!(status(&in_use, &made.id).await, "running");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(FALLS_ASLEEP_WITHIN, falling_asleep).await.expect("whose session has ended sleeps");
    assert_eq!(status(&in_use, &made.id).await, "running");
    assert!(session.is_running(), "it goes on");
    deployment.stop().await;
}

/// Its owner's order is known to compute a moment before it is seen by gateways.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_right_after_the_order_to_start_is_let_in() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (tenant, made, site, _) = newcomer(&deployment).await;
    for _ in 0..3 {
        tenant.done(&format!("POST /compute/containers/{}/stop", made.id), Value::Null).await;
        tenant.until_status(&made.id, "stopped").await;
        until("a refusal", async || match site.ssh(&["gw", "echo in"]).run().await.stderr {
            told if told.contains("is stopped; start it first") => Ok(()),
            told => Err(told),
        })
        .await;
        tenant.done(&format!("POST /compute/containers/{}/start", made.id), Value::Null).await;
        assert_eq!(site.ssh(&["gw", "echo in"]).run().await.ok(), "in\n");
    }
    deployment.stop().await;
}

/// What is no SSH, or not for long.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n";
    let after = |rest: &[u8]| [BANNER, rest].concat();
    let packet =
        |length: u32, padding: u8, payload: &[u8]| after(&[&length.to_be_bytes()[..], &[padding], payload].concat());
    vec![
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("an old version", b"SSH-1.5-old\r\n".to_vec()),
        ("an endless first line", vec![b'a'; 1 << 20]),
        ("endless lines before a banner", b"a line\r\n".repeat(100_000)),
        ("a banner that is too long", [&b"SSH-2.0-"[..], &[b'x'; 70_000], b"\r\n"].concat()),
        ("zeros", after(&[0; 65_536])),
        ("ones", after(&[0xff; 65_536])),
        ("a packet of four gigabytes", packet(u32::MAX, 4, &[20; 64])),
        ("a packet of a megabyte", packet(1 << 20, 4, &[20; 1 << 20])),
        ("a packet of nothing", packet(0, 0, &[])),
        ("nothing but padding", packet(12, 255, &[20; 11])),
        ("a length that is no multiple", packet(13, 4, &[20; 12])),
        (
            "names longer than the packet",
            packet(28, 4, &[&[20][..], &[0; 16], &u32::MAX.to_be_bytes(), &[0; 6]].concat()),
        ),
        ("a request before there are keys", packet(12, 6, &[50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("an unknown message", packet(12, 10, &[255; 11])),
    ]
}

/// Whoever speaks no SSH is shown out, and nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_ssh_are_shown_out() {
    let mut deployment = Deployment::single();
    deployment.set_all("EDD_SSH_LOGIN_GRACE", "2s");
    deployment.start().await;
    let (_tenant, _, site, _) = newcomer(&deployment).await;
    let mut transfer = Transfer::begin(&site).await;
    for (name, bytes) in malformed() {
        eprintln!("case: {name}");
        let (reader, mut writer) = open(site.port).await.into_split();
        // It may be shown out before it has said everything.
        let saying = tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            writer
        });
        within(name, until_closed(reader)).await;
        drop(saying);
    }
    // Everything that clients say, cut off and changed at random places.
    let heard = handshake(site.port).await;
    let mut dice = StdRng::seed_from_u64(7);
    for _ in 0..200 {
        let mut bytes = heard.clone();
        let at = dice.random_range(0..bytes.len());
        bytes[at] = dice.random();
        bytes.truncate(dice.random_range(at..=heard.len()));
        let mut stream = open(site.port).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        within("a hangup", until_closed(stream)).await;
    }
    assert!(transfer.is_running(), "a session ended because of it");
    site.until_login().await;
    drop(transfer);
    deployment.stop().await;
}

/// A connection from an address of its own: who misbehaves is soon not listened to any more.
async fn open(port: u16) -> TcpStream {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let connecting = within("a connection", TcpStream::connect(("127.0.0.1", port)));
    let mut stream = connecting.await.expect("the gateway listens");
    let header = format!("PROXY TCP4 10.99.{high}.{low} 127.0.0.1 1 22\r\n");
    stream.write_all(header.as_bytes()).await.expect("room for a line");
    stream
}

/// Reads to the end, however that comes.
async fn until_closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut block = [0; 4096];
    while matches!(stream.read(&mut block).await, Ok(1..)) {}
}

/// What OpenSSH says before it encrypts, answered by the gateway.
async fn handshake(port: u16) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let between = listener.local_addr().expect("an address").port();
    let scan =
        crate::harness::Program::new("ssh-keyscan").args(&["-p", &between.to_string(), "-t", "ed25519", "127.0.0.1"]);
    let scan = scan.start();
    let (client, _) = within("a client", listener.accept()).await.expect("a client");
    let ((mut from_client, mut to_client), (mut from_gateway, mut to_gateway)) =
        (client.into_split(), open(port).await.into_split());
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_gateway, &mut to_client).await });
    let mut heard = Vec::new();
    let mut block = [0; 4096];
    while let Ok(length @ 1..) = from_client.read(&mut block).await {
        heard.extend_from_slice(&block[..length]);
        // It may have hung up.
        let _ = to_gateway.write_all(&block[..length]).await;
    }
    drop(to_gateway);
    let _ = answers.await;
    scan.output().await.ok();
    heard
}
