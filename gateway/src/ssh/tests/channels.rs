//! What goes through a channel, and past one that stands still.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};

use super::client::Client;
use super::world::{CONTAINER, PATIENCE, Setting, World, finish, text, until};

/// Compressible by nothing, and different at every place.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    noise.truncate(bytes);
    noise
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_status_and_signal_arrive_and_errors_are_apart() {
    let world = World::new().await;
    let cat = world.run("cat", b"x").await;
    assert_eq!((text(&cat.stdout), cat.status.code()), ("x".to_owned(), Some(0)));
    let apart = world.run("echo out; echo err >&2; exit 3", b"").await;
    assert_eq!(text(&apart.stdout), "out\n");
    assert_eq!((text(&apart.stderr), apart.status.code()), ("err\n".to_owned(), Some(3)));
    // OpenSSH's client exits with 255 when a signal ended the command.
    let mut verbose = world.ssh(&["-v"]);
    verbose.args(["kill -USR1 $$"]);
    let killed = finish(verbose, b"").await;
    assert_eq!(killed.status.code(), Some(255));
    let mut environment = world.ssh(&["-o", "SetEnv=LC_TEST=hello"]);
    environment.arg("echo $LC_TEST");
    assert_eq!(text(&finish(environment, b"").await.stdout), "hello\n");
    let mut terminal = world.ssh(&["-tt"]);
    terminal.arg("stty size; tty; exit 5").env("TERM", "xterm");
    let terminal = finish(terminal, b"").await;
    assert!(text(&terminal.stdout).contains("/dev/pts/"), "{terminal:?}");
    assert_eq!(terminal.status.code(), Some(5));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_come_through_whole_both_ways_whoever_changes_keys_all_the_time() {
    let sent = noise(5 * 1024 * 1024);
    // The gateway, towards both sides, and the client.
    let gateway = (World::with(Setting { rekey_after_bytes: 512 * 1024, ..Setting::default() }).await, &[][..]);
    let client =
        (World::new().await, &["-o", "RekeyLimit=1M", "-o", "Ciphers=aes128-ctr", "-o", "MACs=hmac-sha2-256"][..]);
    for (world, options) in [gateway, client] {
        let mut command = world.ssh(options);
        command.arg("cat");
        let back = finish(command, &sent).await;
        assert!(back.stdout == sent, "{} bytes of {} {}", back.stdout.len(), sent.len(), text(&back.stderr));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_by_both_protocols_of_scp_and_by_sftp() {
    let world = World::new().await;
    let sent = noise(1_000_000);
    std::fs::write(world.path("sent"), &sent).unwrap();
    for (name, protocol) in [("legacy", "-O"), ("modern", "-s")] {
        let remote = world.path(name);
        let mut copy = world.command("scp");
        copy.args([protocol, "-P", &world.address.port().to_string()]).arg(world.path("sent"));
        copy.arg(format!("{}@127.0.0.1:{}", CONTAINER, remote.display()));
        let copied = finish(copy, b"").await;
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        assert!(std::fs::read(&remote).unwrap() == sent);
    }
    world.stop().await;
}

/// A first connection, which others share.
async fn master(world: &World, options: &[&str]) -> Client {
    let socket = world.path("control");
    let mut command = world.ssh(options);
    let client = Client::of(command.args(["-M", "-N", "-S"]).arg(&socket), Stdio::null());
    until("the control socket", || socket.exists()).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_stands_still_holds_up_no_other() {
    let world = World::new().await;
    let _master = master(&world, &[]).await;
    let control = world.path("control").display().to_string();
    let shared = |script: &str| {
        let mut command = world.ssh(&["-S", &control]);
        command.arg(script);
        command
    };
    // One whose command reads nothing of endless input, and one whose output nobody takes.
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let mut unread = Client::of(&mut shared("echo ready; sleep 600"), zero.into());
    assert_eq!(unread.read(6).await, b"ready\n");
    let mut untaken = Client::of(&mut shared("cat /dev/zero"), Stdio::null());
    untaken.read(1024).await;
    for _ in 0..10 {
        // An answer behind one of the others would take until they end.
        let answer = finish(shared("cat"), b"here").await;
        assert_eq!(text(&answer.stdout), "here");
    }
    assert!(unread.is_running() && untaken.is_running(), "they go on meanwhile");
    drop((unread, untaken));
    world.stop().await;
}

/// One that shares its connection closes a channel once output and input have ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_at_the_end_of_the_output_is_told_of_the_programs_end() {
    let world = World::new().await;
    let (said, go) = (world.path("said"), world.path("go"));
    let _master = master(&world, &["-vv", "-E", said.to_str().unwrap()]).await;
    let mut command = world.ssh(&["-S", world.path("control").to_str().unwrap()]);
    command.arg(format!("exec >&- 2>&-; until [ -e {} ]; do sleep 0.05; done; exit 7", go.display()));
    let running = tokio::spawn(finish(command, b""));
    until("the client to close", || std::fs::read_to_string(&said).unwrap().contains("send close")).await;
    std::fs::write(&go, "").unwrap();
    let output = running.await.unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", std::fs::read_to_string(&said).unwrap());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_channels_of_one_connection_work_at_once() {
    let world = World::new().await;
    let _master = master(&world, &[]).await;
    let control = world.path("control").display().to_string();
    let mut running = tokio::task::JoinSet::new();
    for number in 0..20 {
        let mut command = world.ssh(&["-S", &control]);
        command.arg(format!("cat; exit {number}"));
        running.spawn(async move { (number, finish(command, &noise(200_000)).await) });
    }
    let all = async {
        while let Some(done) = running.join_next().await {
            let (number, output) = done.unwrap();
            assert_eq!(output.status.code(), Some(number), "{}", text(&output.stderr));
            assert!(output.stdout == noise(200_000));
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    world.stop().await;
}

/// Takes whatever host key there is.
struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A client of our own, which sends what it is told to.
pub async fn logged_in(world: &World) -> russh::client::Handle<impl russh::client::Handler + use<>> {
    let key = PrivateKey::read_openssh_file(world.path("key").as_path()).unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let mut client = russh::client::connect(Arc::default(), world.address, Anybody).await.unwrap();
    assert!(client.authenticate_publickey(CONTAINER, key).await.unwrap().success());
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_nobody_takes_is_stopped() {
    let world = World::new().await;
    let client = logged_in(&world).await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "sleep 600").await.unwrap();
    let (piece, mut sent_bytes) = (bytes::Bytes::from(vec![0; 32 * 1024]), 0);
    while tokio::time::timeout(Duration::from_secs(2), channel.data_bytes(piece.clone())).await.is_ok() {
        sent_bytes += piece.len();
        // The windows of both connections, the pipe, and what the system keeps of each.
        assert!(sent_bytes < 16 * 1024 * 1024, "nothing stops the sender");
    }
    assert!(sent_bytes >= 64 * 1024, "{sent_bytes}");
    world.stop().await;
}
