//! Ports, sockets and agents that are forwarded.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::world::{PATIENCE, World, finish, text, until};

/// Ends with the test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hold(mut command: Command) -> Held {
    Held(command.stdin(Stdio::null()).spawn().unwrap())
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that answers each connection with what it got, reversed.
async fn reverser() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(reverse(stream));
        }
    });
    address
}

async fn reverse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes.reverse();
    stream.write_all(&bytes).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Whether what goes in comes out reversed: both directions, and the end of each.
async fn check(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let sent: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    back.reverse();
    assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
}

async fn dial(address: SocketAddr) -> TcpStream {
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_lead_into_the_container_by_l_d_and_w() {
    let world = World::new().await;
    let (inside, local, socks) = (reverser().await, free(), free());
    let forward = format!("{local}:{inside}");
    let _held = hold(world.ssh(&["-N", "-L", &forward, "-D", &socks.to_string()]));
    check(dial(local).await).await;
    let mut proxied = dial(socks).await;
    // SOCKS 5 (RFC 1928) without authentication, to an IPv4 address.
    proxied.write_all(&[5, 1, 0]).await.unwrap();
    let mut chosen = [0; 2];
    proxied.read_exact(&mut chosen).await.unwrap();
    let mut connect = vec![5, 1, 0, 1, 127, 0, 0, 1];
    connect.extend(inside.port().to_be_bytes());
    proxied.write_all(&connect).await.unwrap();
    let mut connected = [0; 10];
    proxied.read_exact(&mut connected).await.unwrap();
    assert_eq!(connected[1], 0);
    check(proxied).await;
    let piped = finish(world.ssh(&["-W", &inside.to_string()]), b"abc").await;
    assert_eq!(text(&piped.stdout), "cba", "{}", text(&piped.stderr));
    let refused = finish(world.ssh(&["-W", &free().to_string()]), b"").await;
    assert!(text(&refused.stderr).contains("Connection refused"), "{}", text(&refused.stderr));
    assert!(world.diary.has("opened direct_tcpip"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_container_lead_to_the_client_whichever_is_free() {
    let world = World::new().await;
    let here = reverser().await;
    let forward = format!("127.0.0.1:0:{here}");
    let _held = hold(world.ssh(&["-N", "-R", &forward]));
    let given = || {
        let lines = world.diary.lines();
        let line = lines.into_iter().find(|line| line.starts_with("forwarded Tcp"))?;
        line.trim_end_matches([' ', '}']).rsplit(' ').next()?.parse::<u16>().ok()
    };
    until("a port", || given().is_some_and(|port| port > 0)).await;
    check(dial(SocketAddr::from(([127, 0, 0, 1], given().unwrap()))).await).await;
    assert!(world.diary.has("opened forwarded_tcpip"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_forwarded_in_both_directions() {
    let world = World::new().await;
    let (inside, local, remote, here) =
        (world.path("inside"), world.path("local"), world.path("remote"), world.path("here"));
    for path in [&inside, &here] {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(reverse(stream));
            }
        });
    }
    let pair = |near: &Path, far: &Path| format!("{}:{}", near.display(), far.display());
    let (up, down) = (pair(&local, &inside), pair(&remote, &here));
    let _held = hold(world.ssh(&["-N", "-L", &up, "-R", &down]));
    until("the sockets", || local.exists() && remote.exists()).await;
    check(UnixStream::connect(&local).await.unwrap()).await;
    check(UnixStream::connect(&remote).await.unwrap()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_lent_to_the_container_if_asked_and_not_otherwise() {
    let world = World::new().await;
    let agent = world.path("agent");
    let mut command = Command::new("ssh-agent");
    let _agent = hold({
        command.arg("-D").arg("-a").arg(&agent).stdout(Stdio::null());
        command
    });
    until("the agent", || agent.exists()).await;
    // Its socket is there a moment before it listens.
    let adding = async {
        loop {
            let mut add = Command::new("ssh-add");
            add.env("SSH_AUTH_SOCK", &agent).arg("-q").arg(world.path("key"));
            if finish(add, b"").await.status.success() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, adding).await.expect("an agent that takes the key");
    for (option, keys) in [("-A", 1), ("-a", 0)] {
        let mut list = world.ssh(&[option]);
        list.env("SSH_AUTH_SOCK", &agent).arg("ssh-add -l 2>/dev/null | grep -c SHA256");
        assert_eq!(text(&finish(list, b"").await.stdout), format!("{keys}\n"));
    }
    world.stop().await;
}
