//! An SSH connection, from its first byte to its last.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use russh::Disconnect;
use russh::server::{self, RunningSession};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::drain::Ticket;
use crate::listeners::{self, OpenConnection, Shared};
use crate::metrics::Listener;
use crate::ssh::kill_switch::{KillSwitch, Reason};
use crate::ssh::knock::Knock;
use crate::ssh::patience::Impatient;
use crate::ssh::server::FromClient;
use crate::ssh::service::Service;
use crate::ssh::session::{CONTAINER_CLOSED, Session};

/// How long a trusted proxy has to begin a PROXY header. Clients may wait for the server's first line before they say
/// anything; a proxy that passes such a one on without a header is waited for no longer.
const PROXY_PATIENCE: Duration = Duration::from_millis(250);
/// How long a client has to be told why its session ends.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(250);
/// Longest wait for a connection that was cut to be let go of.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

type Running = RunningSession<FromClient>;

/// Serves one connection to its end.
pub async fn serve(stream: TcpStream, remote: SocketAddr, service: Arc<Service>, shared: Arc<Shared>, ticket: Ticket) {
    let arriving = listeners::arrive(stream, remote, Some(PROXY_PATIENCE), &shared);
    let arriving = tokio::time::timeout(shared.handshake_timeout, arriving);
    let Ok(Some(arrived)) = arriving.await else { return };
    if let Err(refusal) = service.admitter.arrived(arrived.ip) {
        shared.metrics.connections_refused.with_label_values(&[refusal.reason]).inc();
        return;
    }
    let _open = OpenConnection::new(&shared, Listener::Ssh, "ssh");
    let knock = Arc::new(Knock::new(Arc::clone(&service.admitter), arrived.ip));
    let kill = KillSwitch::default();
    let (logged_in, login) = oneshot::channel();
    let handler = FromClient::new(Arc::clone(&service), arrived.ip, kill.clone(), Arc::clone(&knock), logged_in);
    let socket = kill.client_socket(Impatient::new(arrived.stream, service.patience.longest_silence()));
    let grace = tokio::time::sleep(service.login_grace);
    let opening = async {
        let mut running = server::run_stream(Arc::clone(&service.protocol), socket, handler).await?;
        tokio::select! {
            biased;
            Ok(session) = login => Ok(Some((running, session))),
            ended = &mut running => ended.map(|()| None),
        }
    };
    let opened = tokio::select! {
        opened = opening => opened,
        () = grace => {
            knock.timed_out();
            Ok(None)
        }
        () = cut(&ticket) => Ok(None),
    };
    if let Err(error) = &opened {
        tracing::debug!(%error, peer = %arrived.ip, "an SSH connection ended before anybody had logged in");
        knock.broke(error);
    }
    knock.tell(&*service.events);
    // Whoever is in has a session, and is no longer one of those that wait.
    knock.settle();
    match opened {
        Ok(Some((running, session))) => live(running, &session, &ticket).await,
        Ok(None) | Err(_) => kill.cut_client(),
    }
}

/// A session that somebody is logged in to.
async fn live(mut running: Running, session: &Arc<Session>, ticket: &Ticket) {
    tokio::spawn(Arc::clone(session).connect());
    let (ended, reason) = tokio::select! {
        // Who revokes an access says why before it is cancelled.
        biased;
        reason = session.kill.asked() => (false, reason),
        ended = &mut running => {
            let word = if session.has_hung_up() { CONTAINER_CLOSED } else { word(ended.err().as_ref()) };
            (true, Reason { word, message: String::new() })
        }
        () = session.admission.revoked.cancelled() => (false, reason("revoked", "the access was revoked")),
        () = idle_at_drain(session, ticket) => (false, reason("shutting_down", "the gateway restarts; connect again")),
        () = cut(ticket) => (false, reason("shutting_down", "the gateway restarts; connect again")),
    };
    // Ends the container's side at once.
    session.kill.kill(reason.word, reason.message.clone());
    session.log.ended(reason.word);
    if !ended {
        let goodbye = async {
            // Failing means that there is nobody to be told.
            let _ = session.to_client.disconnect(Disconnect::ByApplication, reason.message, String::new()).await;
            let _ = (&mut running).await;
        };
        if tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.is_err() {
            session.kill.cut_client();
            let _ = tokio::time::timeout(CUT_TIMEOUT, running).await;
        }
    }
}

fn reason(word: &'static str, message: &str) -> Reason {
    Reason { word, message: message.to_owned() }
}

/// How a connection ended by itself.
fn word(error: Option<&russh::Error>) -> &'static str {
    match error {
        Some(russh::Error::IO(error)) if error.kind() == ErrorKind::TimedOut => "client_silent",
        None | Some(russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP) => "client_left",
        Some(russh::Error::KeepaliveTimeout) => "client_silent",
        Some(_) => "protocol_error",
    }
}

async fn cut(ticket: &Ticket) {
    poll_fn(|context| if ticket.poll_cut(context) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Resolves when the gateway ends and no channel of the session is open.
async fn idle_at_drain(session: &Session, ticket: &Ticket) {
    poll_fn(|context| if ticket.poll_close_idle(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    session.idle().await;
}
