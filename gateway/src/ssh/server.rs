//! What a client says, from its first key to its last channel.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session as Protocol, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect, Pty, Sig};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ssh::admission::{Admission, Attempt};
use crate::ssh::forwards::{Forwards, Wish};
use crate::ssh::inbox::{Inbox, Inboxes, Stream};
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::knock::Knock;
use crate::ssh::opening;
use crate::ssh::requests::{Request, Terminal};
use crate::ssh::service::Service;
use crate::ssh::session::Session;
use crate::ssh::session_events::{Forward, LoggedIn};
use crate::ssh::upstream::{Origin, fingerprint};

/// Longest version line of a client that is told, in characters.
const MAX_CLIENT_CHARS: usize = 128;

/// Takes what a client says. Belongs to its connection, and ends with it.
pub struct FromClient {
    service: Arc<Service>,
    peer: IpAddr,
    begun: Instant,
    kill: KillSwitch,
    inboxes: Inboxes,
    knock: Arc<Knock>,
    /// Who the last signature proved the client to be, and by which name it came.
    admitted: Option<(Admission, String)>,
    session: Option<Arc<Session>>,
    /// Of the session.
    forwards: Option<Forwards>,
    logged_in: Option<oneshot::Sender<Arc<Session>>>,
}

impl Drop for FromClient {
    fn drop(&mut self) {
        self.inboxes.close_all();
    }
}

impl FromClient {
    /// `logged_in` is told of the session, once there is one.
    pub fn new(
        service: Arc<Service>,
        peer: IpAddr,
        kill: KillSwitch,
        knock: Arc<Knock>,
        logged_in: oneshot::Sender<Arc<Session>>,
    ) -> Self {
        Self {
            service,
            peer,
            begun: Instant::now(),
            kill,
            inboxes: Inboxes::default(),
            knock,
            admitted: None,
            session: None,
            forwards: None,
            logged_in: Some(logged_in),
        }
    }

    fn with(&self, id: ChannelId, then: impl FnOnce(&Inbox)) -> Result<(), russh::Error> {
        // A channel that nobody looks at any more has none.
        if let Some(inbox) = self.inboxes.get(id) {
            then(&inbox);
        }
        Ok(())
    }

    /// Has a request answered in its turn; at once where there is no such channel.
    fn asked(&self, id: ChannelId, request: Request, protocol: &mut Protocol) -> Result<(), russh::Error> {
        match self.session.as_ref().and_then(|session| session.line(id)) {
            Some(line) => {
                line.desk.take(request);
                Ok(())
            }
            None => protocol.channel_failure(id),
        }
    }

    /// None: it is answered in its turn.
    fn wished(&self, wish: Wish) -> Option<bool> {
        let is_taken = self.forwards.as_ref().is_some_and(|forwards| forwards.take(wish));
        if is_taken { None } else { Some(false) }
    }

    fn open(&self, wish: opening::Wish, channel: Channel<Msg>, reply: ChannelOpenHandle) -> Result<(), russh::Error> {
        // Without a session, nobody is logged in; a reply that is dropped is a refusal.
        if let Some(session) = &self.session {
            tokio::spawn(opening::serve(Arc::clone(session), wish, channel, reply));
        }
        Ok(())
    }
}

impl Handler for FromClient {
    type Error = russh::Error;

    async fn auth_password(&mut self, username: &str, _password: &str) -> Result<Auth, russh::Error> {
        self.knock.password_refused(username);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        username: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        let attempt = Attempt { username, key: offer.public_key, peer: self.peer };
        match self.service.admitter.offer(&attempt) {
            Ok(()) => Ok(Auth::Accept),
            Err(refusal) => {
                self.knock.key_refused(username, fingerprint(offer.public_key), refusal, offer.is_signed);
                Ok(Auth::reject())
            }
        }
    }

    async fn auth_publickey(&mut self, username: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let attempt = Attempt { username, key: key.public_key, peer: self.peer };
        match self.service.admitter.admit(&attempt) {
            Ok(admission) => {
                self.admitted = Some((admission, username.to_owned()));
                Ok(Auth::Accept)
            }
            Err(refusal) => {
                self.knock.key_refused(username, fingerprint(key.public_key), refusal, true);
                Ok(Auth::reject())
            }
        }
    }

    async fn auth_succeeded(&mut self, protocol: &mut Protocol) -> Result<(), russh::Error> {
        let Some((admission, username)) = self.admitted.take() else { return Err(russh::Error::NotAuthenticated) };
        self.knock.admitted();
        let id = Uuid::now_v7();
        let login = LoggedIn {
            session: id,
            admission: admission.clone(),
            username,
            peer: self.peer,
            client: String::from_utf8_lossy(protocol.remote_sshid()).chars().take(MAX_CLIENT_CHARS).collect(),
            took: self.begun.elapsed(),
            kill: self.kill.clone(),
        };
        let log = match self.service.events.began(login) {
            Ok(log) => log,
            Err(refusal) => return protocol.disconnect(Disconnect::TooManyConnections, &refusal.message, ""),
        };
        let (service, kill, inboxes) = (Arc::clone(&self.service), self.kill.clone(), self.inboxes.clone());
        let session = Arc::new(Session::new(service, admission, id, kill, protocol.handle(), inboxes, log));
        self.session = Some(Arc::clone(&session));
        self.forwards = Some(Forwards::of(Arc::clone(&session)));
        if let Some(logged_in) = self.logged_in.take() {
            // Nobody waits any more: the connection is being cut.
            let _ = logged_in.send(session);
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.open(opening::Wish::Session, channel, reply)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        _protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        let origin = Origin { address: from.to_owned(), port: from_port };
        self.open(opening::Wish::TcpIp { host: host.to_owned(), port, origin }, channel, reply)
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.open(opening::Wish::StreamLocal { path: path.to_owned() }, channel, reply)
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_bytes: u32,
        _window_bytes: u32,
        _protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.inboxes.open(id);
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _protocol: &mut Protocol) -> Result<(), russh::Error> {
        self.with(id, |inbox| inbox.push(Stream::Main, data))
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        kind: u32,
        data: &[u8],
        _protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.with(id, |inbox| inbox.push(Stream::Extended(kind), data))
    }

    async fn channel_eof(&mut self, id: ChannelId, _protocol: &mut Protocol) -> Result<(), russh::Error> {
        self.with(id, Inbox::eof)
    }

    async fn channel_close(&mut self, id: ChannelId, _protocol: &mut Protocol) -> Result<(), russh::Error> {
        self.with(id, Inbox::close)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        kind: &str,
        columns: u32,
        rows: u32,
        width_pixels: u32,
        height_pixels: u32,
        modes: &[(Pty, u32)],
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        let (kind, modes) = (kind.to_owned(), modes.to_vec());
        let wanted = Terminal { kind, columns, rows, width_pixels, height_pixels, modes };
        self.asked(id, Request::Terminal(wanted), protocol)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width_pixels: u32,
        height_pixels: u32,
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.asked(id, Request::Resize { columns, rows, width_pixels, height_pixels }, protocol)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.asked(id, Request::Variable { name: name.to_owned(), value: value.to_owned() }, protocol)
    }

    async fn shell_request(&mut self, id: ChannelId, protocol: &mut Protocol) -> Result<(), russh::Error> {
        self.asked(id, Request::Shell, protocol)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.asked(id, Request::Command(command.to_vec()), protocol)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        self.asked(id, Request::Subsystem(name.to_owned()), protocol)
    }

    async fn agent_request(&mut self, id: ChannelId, protocol: &mut Protocol) -> Result<Option<bool>, russh::Error> {
        self.asked(id, Request::Agent, protocol)?;
        Ok(None)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        is_single: bool,
        auth_protocol: &str,
        cookie: &str,
        screen: u32,
        protocol: &mut Protocol,
    ) -> Result<(), russh::Error> {
        let (auth_protocol, cookie) = (auth_protocol.to_owned(), cookie.to_owned());
        self.asked(id, Request::X11 { is_single, protocol: auth_protocol, cookie, screen }, protocol)
    }

    async fn signal(&mut self, id: ChannelId, signal: Sig, protocol: &mut Protocol) -> Result<(), russh::Error> {
        self.asked(id, Request::Signal(signal), protocol)
    }

    async fn other_request(
        &mut self,
        id: ChannelId,
        name: &str,
        data: &[u8],
        protocol: &mut Protocol,
    ) -> Result<Option<bool>, russh::Error> {
        self.asked(id, Request::Other { name: name.to_owned(), data: data.to_vec() }, protocol)?;
        Ok(None)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _protocol: &mut Protocol,
    ) -> Result<Option<bool>, russh::Error> {
        Ok(self.wished(Wish::Begin(Forward::Tcp { address: address.to_owned(), port: *port })))
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _protocol: &mut Protocol,
    ) -> Result<Option<bool>, russh::Error> {
        Ok(self.wished(Wish::End(Forward::Tcp { address: address.to_owned(), port })))
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _protocol: &mut Protocol,
    ) -> Result<Option<bool>, russh::Error> {
        Ok(self.wished(Wish::Begin(Forward::StreamLocal { path: path.to_owned() })))
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _protocol: &mut Protocol,
    ) -> Result<Option<bool>, russh::Error> {
        Ok(self.wished(Wish::End(Forward::StreamLocal { path: path.to_owned() })))
    }
}
