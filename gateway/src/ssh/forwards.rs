//! Ports and sockets that a client has its container listen on (`-R`): asked for one after the other, and answered in
//! that order. Nothing else of the connection waits for the answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::ssh::admission::Refusal;
use crate::ssh::leg::Leg;
use crate::ssh::session::Session;
use crate::ssh::session_events::Forward;
use crate::ssh::upstream::Upstream;

/// Longest wait for a container's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Wishes that wait for their turn; more are refused.
const MAX_WAITING: usize = 256;
/// Longest address or path that is passed on.
const MAX_NAME_BYTES: usize = 1024;

/// What a client wants of its container.
#[derive(Debug)]
pub enum Wish {
    Begin(Forward),
    End(Forward),
}

/// Where a session's wishes go, until it is dropped.
#[derive(Debug)]
pub struct Forwards(mpsc::Sender<Wish>);

impl Forwards {
    pub fn of(session: Arc<Session>) -> Self {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(serve(session, waiting));
        Self(sender)
    }

    /// Whether the wish is taken, and answered in its turn.
    pub fn take(&self, wish: Wish) -> bool {
        let (Wish::Begin(forward) | Wish::End(forward)) = &wish;
        let (Forward::Tcp { address: name, .. } | Forward::StreamLocal { path: name }) = forward;
        name.len() <= MAX_NAME_BYTES && self.0.try_send(wish).is_ok()
    }
}

async fn serve(session: Arc<Session>, mut waiting: mpsc::Receiver<Wish>) {
    while let Some(wish) = waiting.recv().await {
        let told = match session.fulfil(wish).await {
            Some(chosen_port) => session.to_client.request_success(chosen_port).await,
            None => session.to_client.request_failure().await,
        };
        if told.is_err() {
            // The client's connection is over.
            return;
        }
    }
}

impl Session {
    /// None: it is refused. Otherwise the port that the container has chosen, if the client left that open.
    async fn fulfil(&self, wish: Wish) -> Option<Option<u32>> {
        match wish {
            Wish::Begin(Forward::Tcp { address, port }) => {
                self.asked_for().set_forward();
                let given =
                    self.ask_sshd(async |upstream| upstream.handle().tcpip_forward(&address, port).await).await?;
                let chosen = (port == 0).then_some(given);
                self.log.forwarded(&Forward::Tcp { address, port: chosen.unwrap_or(port) });
                Some(chosen)
            }
            Wish::Begin(Forward::StreamLocal { path }) => {
                self.asked_for().set_forward();
                self.ask_sshd(async |upstream| upstream.handle().streamlocal_forward(&path).await).await?;
                self.log.forwarded(&Forward::StreamLocal { path });
                Some(None)
            }
            Wish::End(Forward::Tcp { address, port }) => {
                self.ask_sshd(async |upstream| upstream.handle().cancel_tcpip_forward(&address, port).await).await?;
                Some(None)
            }
            Wish::End(Forward::StreamLocal { path }) => {
                self.ask_sshd(async |upstream| upstream.handle().cancel_streamlocal_forward(&path).await).await?;
                Some(None)
            }
        }
    }

    /// Asks the container's sshd. None: it refuses, or there is none.
    async fn ask_sshd<T>(&self, ask: impl AsyncFnOnce(&Upstream) -> Result<T, russh::Error>) -> Option<T> {
        let asking = async {
            let Leg::Sshd(upstream) = self.leg().await? else {
                return Err(Refusal::new("no_sshd", "the container has no SSH server"));
            };
            // Refused, or the connection is over, which ends the session.
            ask(&upstream).await.map_err(|error| Refusal::new("forward", error.to_string()))
        };
        let asking = self.kill.token().run_until_cancelled(tokio::time::timeout(ANSWER_TIMEOUT, asking)).await;
        asking?.ok()?.ok()
    }
}
