//! Ends whose network is gone: they say nothing more, take nothing more, and tell nobody.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::Client;
use super::world::{CONTAINER, Setting, World, until};
use crate::route::Authority;
use crate::ssh::admission::Target;
use crate::ssh::patience::Patience;

/// A client that is there answers within four times this on a machine that is busy, too.
const QUICK: Patience = Patience { ask_every: Duration::from_millis(500) };

/// A network that passes connections on until it is silent.
struct Link {
    address: SocketAddr,
    is_silent: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Link {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_silent = watch::Sender::new(false);
        let silent = is_silent.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
                tokio::spawn(pass(from_client, to_server, silent.clone()));
                tokio::spawn(pass(from_server, to_client, silent.clone()));
            }
        });
        Self { address, is_silent, accepting }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut silent: watch::Receiver<bool>) {
    let mut block = vec![0; 16 * 1024];
    loop {
        let bytes = tokio::select! {
            biased;
            _ = silent.wait_for(|is_silent| *is_silent) => break,
            bytes = from.read(&mut block) => bytes.unwrap_or(0),
        };
        if bytes == 0 || to.write_all(&block[..bytes]).await.is_err() {
            return;
        }
    }
    // Both sockets stay open, and nobody reads them.
    let _ = silent.wait_for(|is_silent| !is_silent).await;
    drop((from, to));
}

/// OpenSSH, with a command, to a gateway at `address`.
fn client(world: &World, address: SocketAddr, script: &str) -> Command {
    let mut command = world.command("ssh");
    command.args(["-p", &address.port().to_string(), &format!("{CONTAINER}@127.0.0.1"), script]);
    command
}

async fn world() -> World {
    World::with(Setting { patience: QUICK, ..Setting::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_network_is_gone_is_given_up_on_and_one_that_is_quiet_is_not() {
    let world = world().await;
    let link = Link::to(world.address).await;
    let mut quiet = Client::of(&mut client(&world, world.address, "echo in; cat"), Stdio::piped());
    assert_eq!(quiet.read(3).await, b"in\n");
    let mut idle = Client::of(&mut client(&world, link.address, "echo in; cat"), Stdio::piped());
    assert_eq!(idle.read(3).await, b"in\n");
    // The gateway has more to send than the network takes, so that it cannot even ask.
    let mut receiving = Client::of(&mut client(&world, link.address, "exec cat /dev/zero"), Stdio::null());
    receiving.read(100_000).await;
    let since = Instant::now();
    link.is_silent.send_replace(true);
    let ended = || world.diary.lines().iter().filter(|line| *line == "ended client_silent").count();
    until("the end of both", || ended() == 2).await;
    assert!(since.elapsed() >= QUICK.ask_every * 3, "{:?}", since.elapsed());
    // Who answers may say nothing for longer.
    until("a while", || since.elapsed() > QUICK.longest_silence() * 3).await;
    quiet.0.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
    assert_eq!(quiet.read(5).await, b"here\n");
    assert_eq!(ended(), 2);
    drop((quiet, idle, receiving));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_network_is_gone_is_given_up_on() {
    let world = world().await;
    let link = Link::to(world.sshd.address).await;
    if let Target::Sshd { address, .. } = &mut *world.doorman.target.lock().unwrap() {
        *address = Authority::parse(&link.address.to_string()).unwrap();
    }
    let mut idle = Client::of(&mut client(&world, world.address, "echo in; cat"), Stdio::piped());
    assert_eq!(idle.read(3).await, b"in\n");
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let mut sending = Client::of(&mut client(&world, world.address, "echo in; exec cat >/dev/null"), zeros.into());
    assert_eq!(sending.read(3).await, b"in\n");
    link.is_silent.send_replace(true);
    let ends = || -> Vec<_> { world.diary.lines().into_iter().filter(|line| line.starts_with("ended ")).collect() };
    until("the end of both", || ends().len() == 2).await;
    assert_eq!(ends(), ["ended container_closed"; 2]);
    assert_eq!((idle.code().await, sending.code().await), (Some(255), Some(255)));
    world.stop().await;
}
