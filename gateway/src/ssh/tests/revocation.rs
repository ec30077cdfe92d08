//! What is taken back ends what goes on.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::world::{PATIENCE, World, finish, text, until};
use crate::route::Authority;
use crate::ssh::admission::{Refusal, Target};

/// A client in the middle of an endless transfer to it.
fn transfer(world: &World) -> Child {
    let mut command = world.ssh(&[]);
    command.arg("exec cat /dev/zero").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 100_000]).unwrap();
    child
}

/// Connections to and from a port of this machine that are established.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let is_ours = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote, state) = (words.next(), words.next(), words.next());
        state == Some("01") && [local, remote].iter().flatten().any(|address| address.ends_with(&end))
    };
    table.lines().skip(1).filter(is_ours).count()
}

/// Neither leg is left within so many looks, 10 ms apart: a second where nothing else runs, and longer on a machine that
/// takes longer for everything.
async fn both_legs_end_at_once(world: &World) {
    const LOOKS: u32 = 90;
    let left = || [world.address, world.sshd.address].map(|address| connections(address.port()));
    for _ in 0..LOOKS {
        if left() == [0, 0] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} ends of connections are left to the gateway and to the container", left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_access_ends_both_legs_at_once_and_says_so() {
    let world = World::new().await;
    let mut child = transfer(&world);
    let mut stdout = child.stdout.take().unwrap();
    let draining = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    world.doorman.revoked.cancel();
    both_legs_end_at_once(&world).await;
    assert!(world.diary.has("ended revoked"), "{:?}", world.diary.lines());
    let mut error = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(255));
    assert!(text(&error).contains("revoked"), "{}", text(&error));
    draining.join().unwrap().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_stopped_reading_is_ended_all_the_same() {
    let world = World::new().await;
    // Nobody takes what it prints, so that it stops reading from the network.
    let mut child = transfer(&world);
    let stopped = std::process::Command::new("kill").args(["-STOP", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    world.doorman.retired.cancel();
    both_legs_end_at_once(&world).await;
    assert!(world.diary.has("ended container_stopped"), "{:?}", world.diary.lines());
    child.kill().unwrap();
    child.wait().unwrap();
    world.stop().await;
}

/// To find out that nobody answers takes minutes.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_container_that_is_stopped_meanwhile_is_told_so() {
    let world = World::new().await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Authority::parse(&mute.local_addr().unwrap().to_string()).unwrap();
    let was = world.doorman.target.lock().unwrap().clone();
    let Target::Sshd { host_key_fingerprint, .. } = was else { panic!("{was:?}") };
    *world.doorman.target.lock().unwrap() = Target::Sshd { address, host_key_fingerprint };
    let mut command = world.ssh(&[]);
    command.arg("true");
    let running = tokio::spawn(finish(command, b""));
    let _called = tokio::time::timeout(PATIENCE, mute.accept()).await.unwrap().unwrap();
    *world.doorman.target.lock().unwrap() = Target::Down(Refusal::new("container_stopped", "it was stopped"));
    let output = running.await.unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(text(&output.stderr).contains("it was stopped"), "{}", text(&output.stderr));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_says_goodbye() {
    let world = World::new().await;
    let mut child = world.ssh(&["-N"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("a session", || world.diary.has("began ")).await;
    world.stop().await;
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(255));
    assert!(error.contains("the gateway restarts"), "{error}");
}
