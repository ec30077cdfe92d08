//! A container that does not answer.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, PrivateKey};
use russh::server::{self, Auth, ChannelOpenHandle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelMsg};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::channels::logged_in;
use super::world::{CONTAINER, World, finish, text, until};
use crate::route::Authority;
use crate::ssh::admission::Target;
use crate::ssh::upstream::fingerprint;

/// Answers every command with its own text, but for `never`, which it does not answer; listens at [`PORT`] as soon as it
/// may.
struct Mute {
    may_listen: watch::Receiver<bool>,
}

const PORT: u32 = 4242;

impl Handler for Mute {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, _user: &str, _certificate: &Certificate) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if command == b"never" {
            return Ok(());
        }
        session.channel_success(id)?;
        session.data(id, command.to_vec())?;
        session.exit_status_request(id, 0)?;
        session.eof(id)?;
        session.close(id)
    }

    async fn tcpip_forward(
        &mut self,
        _address: &str,
        _port: &mut u32,
        session: &mut Session,
    ) -> Result<Option<bool>, Self::Error> {
        let (handle, mut may_listen) = (session.handle(), self.may_listen.clone());
        tokio::spawn(async move {
            if may_listen.wait_for(|may| *may).await.is_ok() {
                let _ = handle.request_success(Some(PORT)).await;
            }
        });
        Ok(None)
    }
}

/// Has the world's container be one that is [`Mute`], and may listen when told so.
async fn muted(world: &World) -> watch::Sender<bool> {
    let (may, may_listen) = watch::channel(false);
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *world.doorman.target.lock().unwrap() = Target::Sshd {
        address: Authority::parse(&listener.local_addr().unwrap().to_string()).unwrap(),
        host_key_fingerprint: fingerprint(key.public_key()),
    };
    let config = Arc::new(server::Config { keys: vec![key], ..server::Config::default() });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (config, mute) = (Arc::clone(&config), Mute { may_listen: may_listen.clone() });
            tokio::spawn(async move { server::run_stream(config, stream, mute).await.unwrap().await });
        }
    });
    may
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_holds_up_no_other_channel() {
    let world = World::new().await;
    let _silent = muted(&world).await;
    let control = world.path("ctl").display().to_string();
    let mut master = world.ssh(&["-M", "-S", &control]);
    let mut master =
        master.arg("never").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a request", || world.diary.has("began Command(\"never\")")).await;
    for _ in 0..3 {
        let mut other = world.ssh(&["-S", &control]);
        other.arg("quick");
        assert_eq!(text(&finish(other, b"").await.stdout), "quick");
    }
    assert!(master.try_wait().unwrap().is_none(), "others were answered once it was refused");
    assert_eq!(world.diary.lines().iter().filter(|line| line.starts_with(&format!("began {CONTAINER}"))).count(), 1);
    master.kill().unwrap();
    master.wait().unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_a_container_takes_its_time_for_holds_up_no_channel_and_answers_keep_their_order() {
    let world = World::new().await;
    let may_listen = muted(&world).await;
    let client = logged_in(&world).await;
    let others = async {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "quick").await.unwrap();
        let mut said = String::new();
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                said.push_str(&text(&data));
            }
        }
        may_listen.send_replace(true);
        said
    };
    // The gateway would have given up on the port before it came to the channel, and knows by itself what to say to a
    // question that comes after.
    let (port, ping, said) = tokio::join!(client.tcpip_forward("localhost", 0), client.send_ping(), others);
    assert_eq!((port.ok(), ping.is_ok(), said.as_str()), (Some(PORT), true, "quick"));
    assert!(world.diary.has(&format!("port: {PORT}")), "{:?}", world.diary.lines());
    drop(client);
    world.stop().await;
}

/// The client goes on sending what the program does not read: its signals arrive all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_size_overtakes_input_that_a_program_does_not_take() {
    let world = World::new().await;
    *world.doorman.target.lock().unwrap() = Target::Exec;
    let client = logged_in(&world).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.exec(true, "deaf").await.unwrap();
    let (mut said, mut sent) = (String::new(), 0);
    // As much as anybody between here and the program holds.
    while let Ok(done) = tokio::time::timeout(Duration::from_millis(500), channel.data_bytes(vec![0; 30_000])).await {
        done.unwrap();
        sent += 30_000;
        assert!(sent < 16_000_000, "somebody holds it all");
    }
    channel.window_change(101, 41, 0, 0).await.unwrap();
    channel.signal(russh::Sig::USR1).await.unwrap();
    let hearing = async {
        while !(said.contains("columns: 101") && said.contains("signal USR1")) {
            if let ChannelMsg::Data { data } = channel.wait().await.expect("a channel") {
                said.push_str(&text(&data));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap();
    drop(client);
    world.stop().await;
}
