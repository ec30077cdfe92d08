//! What a client asks of a channel that is open: each in its turn, passed on to the container, whose answer is the answer.
//! What comes behind a request waits for it; other channels do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::{ChannelId, Pty, Sig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ssh::channel::ContainerEnd;
use crate::ssh::inbox::Inbox;
use crate::ssh::program::{self, Performance, Scene, Wanted};
use crate::ssh::session::{Line, Session, Way};
use crate::ssh::session_events::{Begun, TerminalSize};

/// Longest wait for a container's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests of a channel that wait for their turn, and their size. Clients send tens of variables in a row.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 256 * 1024;

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    Terminal(Terminal),
    Resize { columns: u32, rows: u32, width_pixels: u32, height_pixels: u32 },
    Variable { name: String, value: String },
    Shell,
    Command(Vec<u8>),
    Subsystem(String),
    Agent,
    X11 { is_single: bool, protocol: String, cookie: String, screen: u32 },
    Signal(Sig),
    Other { name: String, data: Vec<u8> },
}

/// A terminal that is asked for.
#[derive(Debug)]
pub struct Terminal {
    pub kind: String,
    pub columns: u32,
    pub rows: u32,
    pub width_pixels: u32,
    pub height_pixels: u32,
    pub modes: Vec<(Pty, u32)>,
}

impl Request {
    /// Of the client's choice.
    fn bytes(&self) -> usize {
        match self {
            Self::Terminal(Terminal { kind, modes, .. }) => kind.len() + modes.len() * size_of::<(Pty, u32)>(),
            Self::Variable { name, value } => name.len() + value.len(),
            Self::Command(command) => command.len(),
            Self::Subsystem(name) => name.len(),
            Self::X11 { protocol, cookie, .. } => protocol.len() + cookie.len(),
            Self::Other { name, data } => name.len() + data.len(),
            Self::Resize { .. } | Self::Shell | Self::Agent | Self::Signal(_) => 0,
        }
    }
}

/// Where a channel's requests go.
#[derive(Clone, Debug)]
pub struct Desk {
    waiting: mpsc::Sender<Request>,
    waiting_bytes: Arc<AtomicUsize>,
    too_many: CancellationToken,
    client: Arc<Inbox>,
}

/// The requests that came to a [`Desk`].
#[derive(Debug)]
pub struct Queue {
    waiting: mpsc::Receiver<Request>,
    waiting_bytes: Arc<AtomicUsize>,
    too_many: CancellationToken,
}

impl Desk {
    /// For a channel whose client's end has this inbox.
    pub fn new(client: Arc<Inbox>) -> (Self, Queue) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let (waiting_bytes, too_many) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let queue = Queue { waiting, waiting_bytes: Arc::clone(&waiting_bytes), too_many: too_many.clone() };
        (Self { waiting: sender, waiting_bytes, too_many, client }, queue)
    }

    /// Takes a request, for which what the client sends from now on waits. Whoever asks for more than there is room for
    /// has asked for long without an answer: the channel is closed.
    pub fn take(&self, request: Request) {
        let bytes = request.bytes();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.client.hold();
        if before.saturating_add(bytes) > MAX_WAITING_BYTES || self.waiting.try_send(request).is_err() {
            self.too_many.cancel();
        }
    }
}

/// What came of a request.
struct Outcome {
    is_done: bool,
    /// Begins after the answer.
    begins: Option<Performance>,
}

impl From<bool> for Outcome {
    fn from(is_done: bool) -> Self {
        Self { is_done, begins: None }
    }
}

impl From<Option<Performance>> for Outcome {
    fn from(begins: Option<Performance>) -> Self {
        Self { is_done: begins.is_some(), begins }
    }
}

/// Sees to the requests of a channel, one after the other. Resolves when there were too many.
pub async fn serve(session: &Session, id: ChannelId, line: &Line, queue: Queue) {
    let too_many = queue.too_many.clone();
    tokio::select! {
        // Failing means that the client's connection is over, which ends the channel.
        _ = answer(session, id, line, queue) => std::future::pending().await,
        () = too_many.cancelled() => {}
    }
}

async fn answer(session: &Session, id: ChannelId, line: &Line, mut queue: Queue) -> Result<(), russh::Error> {
    while let Some(request) = queue.waiting.recv().await {
        let bytes = request.bytes();
        let Outcome { is_done, begins } = session.perform(line, request).await;
        let handle = &session.to_client;
        let told = if is_done { handle.channel_success(id).await } else { handle.channel_failure(id).await };
        told.map_err(|()| russh::Error::SendError)?;
        queue.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Way::Sshd(container) = &line.way {
            container.inbox.release();
        }
        if let Some(performance) = begins {
            performance.begin();
        }
        line.desk.client.release();
    }
    Ok(())
}

impl Session {
    /// Sends a request and waits for its answer.
    async fn ask(&self, container: &ContainerEnd, sending: impl Future<Output = Result<(), russh::Error>>) -> bool {
        let answer = container.inbox.ask();
        let asking = async {
            sending.await.ok()?;
            answer.await.ok()
        };
        let asking = self.kill.token().run_until_cancelled(tokio::time::timeout(ANSWER_TIMEOUT, asking));
        matches!(asking.await, Some(Ok(Some(true))))
    }

    async fn perform(&self, line: &Line, request: Request) -> Outcome {
        match request {
            Request::Terminal(terminal) => self.terminal(line, &terminal).await.into(),
            Request::Resize { columns, rows, width_pixels, height_pixels } => {
                line.meter.log.terminal(TerminalSize { columns, rows });
                match &line.way {
                    // Failing means that the container's connection is over, and the channel with it.
                    Way::Sshd(end) => drop(end.half.window_change(columns, rows, width_pixels, height_pixels).await),
                    Way::Program(stage) => stage.resize(program::size(columns, rows)),
                }
                true.into()
            }
            Request::Variable { name, value } => match &line.way {
                Way::Sshd(end) => self.ask(end, end.half.set_env(true, name, value)).await,
                Way::Program(stage) => stage.set_variable(&name, &value),
            }
            .into(),
            Request::Shell => {
                line.meter.log.began(Begun::Shell);
                match &line.way {
                    Way::Sshd(end) => self.ask(end, end.half.request_shell(true)).await.into(),
                    Way::Program(stage) => self.scene().and_then(|scene| stage.start(Wanted::Shell, scene)).into(),
                }
            }
            Request::Command(command) => self.command(line, command).await,
            Request::Subsystem(name) => self.subsystem(line, name).await,
            Request::Agent => {
                let Way::Sshd(end) = &line.way else { return false.into() };
                self.asked_for().set_agent();
                self.ask(end, end.half.agent_forward(true)).await.into()
            }
            Request::X11 { is_single, protocol, cookie, screen } => {
                let Way::Sshd(end) = &line.way else { return false.into() };
                self.asked_for().set_x11();
                self.ask(end, end.half.request_x11(true, is_single, protocol, cookie, screen)).await.into()
            }
            Request::Signal(signal) => {
                match &line.way {
                    // Failing means that the container's connection is over, and the channel with it.
                    Way::Sshd(end) => drop(end.half.signal(signal).await),
                    Way::Program(stage) => stage.signal(&signal),
                }
                true.into()
            }
            // `break` (RFC 4335) is for the terminal in the container; nothing else that is unknown is passed on.
            Request::Other { name, data } => match &line.way {
                Way::Sshd(end) if name == "break" => self.ask(end, end.half.other_request(true, &name, data)).await,
                Way::Sshd(_) | Way::Program(_) => false,
            }
            .into(),
        }
    }

    async fn terminal(&self, line: &Line, wanted: &Terminal) -> bool {
        let Terminal { kind, columns, rows, width_pixels, height_pixels, modes } = wanted;
        let is_done = match &line.way {
            Way::Sshd(end) => {
                let sending = end.half.request_pty(true, kind, *columns, *rows, *width_pixels, *height_pixels, modes);
                self.ask(end, sending).await
            }
            Way::Program(stage) => stage.set_terminal(kind, program::size(*columns, *rows)),
        };
        if is_done {
            line.meter.log.terminal(TerminalSize { columns: *columns, rows: *rows });
        }
        is_done
    }

    async fn command(&self, line: &Line, command: Vec<u8>) -> Outcome {
        line.meter.log.began(Begun::Command(String::from_utf8_lossy(&command).into_owned()));
        match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.exec(true, command)).await.into(),
            Way::Program(stage) => {
                // A platform takes text, which a NUL would cut.
                let text = String::from_utf8(command).ok().filter(|text| !text.contains('\0'));
                let ready = text.zip(self.scene());
                ready.and_then(|(text, scene)| stage.start(Wanted::Command(text), scene)).into()
            }
        }
    }

    async fn subsystem(&self, line: &Line, name: String) -> Outcome {
        line.meter.log.began(Begun::Subsystem(name.clone()));
        match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.request_subsystem(true, name)).await.into(),
            Way::Program(stage) if name == "sftp" => {
                self.scene().and_then(|scene| stage.start(Wanted::Sftp, scene)).into()
            }
            Way::Program(_) => false.into(),
        }
    }

    fn scene(&self) -> Option<Scene> {
        let crate::ssh::admission::Way::Container { id, user } = &self.admission.way else { return None };
        Some(Scene {
            programs: Arc::clone(&self.service.programs),
            container: *id,
            user: user.clone(),
            to_client: self.to_client.clone(),
            kill: self.kill.clone(),
            windows: self.service.windows.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_requests_than_there_is_room_for_close_the_channel() {
        let variable = |bytes| Request::Variable { name: "X".to_owned(), value: "x".repeat(bytes) };
        let client = Arc::new(Inbox::default());
        let (desk, queue) = Desk::new(Arc::clone(&client));
        (0..MAX_WAITING).for_each(|_| desk.take(Request::Shell));
        assert!(!queue.too_many.is_cancelled());
        desk.take(Request::Shell);
        assert!(queue.too_many.is_cancelled());
        let (desk, queue) = Desk::new(client);
        desk.take(variable(MAX_WAITING_BYTES - 1));
        assert!(!queue.too_many.is_cancelled());
        desk.take(variable(1));
        assert!(queue.too_many.is_cancelled());
    }
}
