//! The connection to a container's sshd: one per login, with a certificate of its own.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Session};
use russh::keys::ssh_key::HashAlg;
use russh::keys::{PublicKeyOrCertificate, ssh_key};
use russh::{Channel, ChannelId, ChannelOpenFailure, Limits, Sig};
use tokio::net::TcpStream;

use crate::route::Authority as Address;
use crate::ssh::admission::Refusal;
use crate::ssh::algorithms;
use crate::ssh::authority::Pass;
use crate::ssh::channel::ContainerEnd;
use crate::ssh::inbox::{Inboxes, Note, Stream};
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::patience::{Impatient, Patience};
use crate::ssh::session_events::ChannelKind;
use crate::ssh::window::FIRST_BYTES;

/// Longest wait for a connection to be made, and then for its handshake and login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The reason of a [`Refusal`] where nobody answers.
pub const UNREACHABLE: &str = "unreachable";

/// A logged-in connection to an sshd.
#[derive(Clone)]
pub struct Upstream {
    handle: Arc<client::Handle<FromContainer>>,
    inboxes: Inboxes,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("inboxes", &self.inboxes).finish_non_exhaustive()
    }
}

/// Takes the channels that a container opens: forwarded connections, agents, X11.
pub trait Callee: Send + Sync + 'static {
    /// Opens the same channel at the client, and then answers `reply`. Does not wait.
    fn called(&self, kind: ChannelKind, origin: Origin, channel: Channel<client::Msg>, reply: ChannelOpenHandle);

    /// The connection is over.
    fn hung_up(&self, reason: &str);
}

/// Where a forwarded connection comes from, as the other side says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub address: String,
    pub port: u32,
}

/// What to log in to.
#[derive(Debug)]
pub struct Destination<'a> {
    pub limits: &'a Limits,
    pub patience: Patience,
    pub address: &'a Address,
    /// The only host key that is spoken to: `SHA256:…`.
    pub host_key_fingerprint: &'a str,
    pub user: &'a str,
}

/// A TCP connection to an sshd, which takes a moment to be there after a wake.
///
/// # Errors
/// There is none.
pub async fn dial(address: &Address) -> Result<TcpStream, Refusal> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let connecting = async {
        match host.parse::<IpAddr>() {
            Ok(ip) => TcpStream::connect((ip, address.port)).await,
            Err(_) => TcpStream::connect((host, address.port)).await,
        }
    };
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Refusal::new(UNREACHABLE, format!("the container's SSH server does not answer: {error}")));
        }
        Err(_) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            let message = format!("the container's SSH server did not answer within {seconds} seconds");
            return Err(Refusal::new(UNREACHABLE, message));
        }
    };
    // Without it, a keystroke waits for the answer to the one before; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

impl Upstream {
    /// Connects and logs in.
    ///
    /// # Errors
    /// The container does not answer, shows another host key than its own, or does not take the certificate.
    pub async fn log_in(
        to: &Destination<'_>,
        pass: Pass,
        callee: Arc<dyn Callee>,
        kill: &KillSwitch,
    ) -> Result<Self, Refusal> {
        let stream = Impatient::new(dial(to.address).await?, to.patience.longest_silence());
        let stream = kill.container_socket(stream);
        let inboxes = Inboxes::default();
        let expected = to.host_key_fingerprint.to_owned();
        let handler = FromContainer { inboxes: inboxes.clone(), callee, expected };
        let logging_in = async {
            let mut handle = client::connect_stream(Arc::new(config(to)), stream, handler).await?;
            let (key, certificate) = (Arc::new(pass.key), pass.certificate);
            let result = handle.authenticate_openssh_cert(to.user, key, certificate).await?;
            Ok((handle, result.success()))
        };
        let unreachable = |why: String| Refusal::new(UNREACHABLE, why);
        match tokio::time::timeout(LOGIN_TIMEOUT, logging_in).await {
            Ok(Ok((handle, true))) => Ok(Self { handle: Arc::new(handle), inboxes }),
            Ok(Ok((_, false))) => {
                let message = format!("the container's SSH server does not let {} in", to.user);
                Err(Refusal::new("container_refused", message))
            }
            Ok(Err(LinkError::HostKey { shown })) => {
                let message = format!(
                    "the container's SSH server shows the host key {shown}, which is not its own; the connection was cut"
                );
                Err(Refusal::new("host_key", message))
            }
            Ok(Err(LinkError::Ssh(error))) => {
                Err(unreachable(format!("the container's SSH server broke off: {error}")))
            }
            Err(_) => {
                let seconds = LOGIN_TIMEOUT.as_secs();
                Err(unreachable(format!("the container's SSH server took longer than {seconds} seconds to log in")))
            }
        }
    }

    pub fn handle(&self) -> &client::Handle<FromContainer> {
        &self.handle
    }

    /// This connection's end of a channel.
    pub fn end(&self, channel: Channel<client::Msg>) -> ContainerEnd {
        // Everything arrives in the inbox; the half that is dropped gets copies, which go nowhere.
        let (_, half) = channel.split();
        ContainerEnd::new(self.inboxes.open(half.id()), half)
    }

    pub fn forget(&self, id: ChannelId) {
        self.inboxes.remove(id);
    }
}

fn config(to: &Destination<'_>) -> client::Config {
    client::Config {
        window_size: FIRST_BYTES,
        limits: to.limits.clone(),
        consumer_adjusts_window: true,
        consumer_closes: true,
        preferred: algorithms::preferred(),
        keepalive_interval: Some(to.patience.ask_every),
        keepalive_max: to.patience.questions(),
        ..client::Config::default()
    }
}

/// Why a connection to a container failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error("another host key than expected: {shown}")]
    HostKey { shown: String },
}

/// What a container's sshd says.
pub struct FromContainer {
    inboxes: Inboxes,
    callee: Arc<dyn Callee>,
    expected: String,
}

impl Drop for FromContainer {
    fn drop(&mut self) {
        self.inboxes.close_all();
    }
}

impl FromContainer {
    fn with(&self, id: ChannelId, then: impl FnOnce(&crate::ssh::inbox::Inbox)) -> Result<(), LinkError> {
        // A channel that nobody looks at any more has none.
        if let Some(inbox) = self.inboxes.get(id) {
            then(&inbox);
        }
        Ok(())
    }

    fn called(
        &self,
        kind: ChannelKind,
        origin: Origin,
        channel: Channel<client::Msg>,
        reply: ChannelOpenHandle,
    ) -> Result<(), LinkError> {
        self.callee.called(kind, origin, channel, reply);
        Ok(())
    }
}

impl client::Handler for FromContainer {
    type Error = LinkError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, LinkError> {
        let shown = fingerprint(&key.public_key());
        if shown == self.expected { Ok(true) } else { Err(LinkError::HostKey { shown }) }
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_bytes: u32,
        _window_bytes: u32,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        self.inboxes.open(id);
        Ok(())
    }

    async fn channel_success(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.answer(true))
    }

    async fn channel_failure(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.answer(false))
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.push(Stream::Main, data))
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        kind: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.push(Stream::Extended(kind), data))
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.eof())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.close())
    }

    async fn exit_status(&mut self, id: ChannelId, status: u32, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.note(Note::ExitStatus(status)))
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        language: &str,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        let (message, language) = (message.to_owned(), language.to_owned());
        self.with(id, |inbox| inbox.note(Note::ExitSignal { signal, core_dumped, message, language }))
    }

    async fn xon_xoff(&mut self, id: ChannelId, can: bool, _session: &mut Session) -> Result<(), LinkError> {
        self.with(id, |inbox| inbox.note(Note::XonXoff(can)))
    }

    async fn other_request(
        &mut self,
        id: ChannelId,
        name: &str,
        _data: &[u8],
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        if name != "eow@openssh.com" {
            return Ok(());
        }
        self.with(id, |inbox| inbox.note(Note::EndOfWrite))
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<client::Msg>,
        address: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        let origin = Origin { address: from.to_owned(), port: from_port };
        self.called(ChannelKind::ForwardedTcpIp { address: address.to_owned(), port }, origin, channel, reply)
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<client::Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        let kind = ChannelKind::ForwardedStreamLocal { path: path.to_owned() };
        self.called(kind, Origin::default(), channel, reply)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<client::Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        self.called(ChannelKind::Agent, Origin::default(), channel, reply)
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<client::Msg>,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        let origin = Origin { address: from.to_owned(), port: from_port };
        self.called(ChannelKind::X11, origin, channel, reply)
    }

    // What follows would be accepted unless it is turned down here. A reply that is dropped is a refusal.

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<client::Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<client::Msg>,
        _host: &str,
        _port: u32,
        _from: &str,
        _from_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<client::Msg>,
        _path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), LinkError> {
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<LinkError>) -> Result<(), LinkError> {
        let why = match reason {
            DisconnectReason::ReceivedDisconnect(info) => info.message,
            DisconnectReason::Error(error) => error.to_string(),
        };
        self.callee.hung_up(&why);
        Ok(())
    }
}

/// As OpenSSH prints it.
pub fn fingerprint(key: &ssh_key::PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A refusal as a channel's failure to open.
pub fn connect_failed(message: impl Into<String>) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: ChannelOpenFailure::ConnectFailed.code(), reason: message.into() }
}
