//! A channel between a client and its container's sshd: one on each side, and everything from either goes to the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use russh::server::Handle;
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf, client, server};

use crate::live::Usage;
use crate::ssh::inbox::{Inbox, Item, Note, Stream};
use crate::ssh::session::Session;
use crate::ssh::session_events::{ChannelLog, Direction};
use crate::ssh::window::{Window, Windows};

/// For what a client sent before it closed, if the container is slow to take it.
const LAST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);

/// One side of a channel: what comes from it, and the way to it.
#[derive(Debug)]
pub struct End<S: From<(ChannelId, ChannelMsg)>> {
    pub inbox: Arc<Inbox>,
    pub half: Arc<ChannelWriteHalf<S>>,
}

impl<S: From<(ChannelId, ChannelMsg)>> Clone for End<S> {
    fn clone(&self) -> Self {
        Self { inbox: Arc::clone(&self.inbox), half: Arc::clone(&self.half) }
    }
}

/// The client's side.
pub type ClientEnd = End<server::Msg>;
/// The container's side.
pub type ContainerEnd = End<client::Msg>;

impl<S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static> End<S> {
    pub fn new(inbox: Arc<Inbox>, half: ChannelWriteHalf<S>) -> Self {
        Self { inbox, half: Arc::new(half) }
    }

    /// Sends bytes as the window of this side allows, which may take as long as it likes.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn send(&self, stream: Stream, bytes: bytes::Bytes) -> Result<(), russh::Error> {
        match stream {
            Stream::Main => self.half.data_bytes(bytes).await,
            Stream::Extended(kind) => self.half.extended_data_bytes(kind, bytes).await,
        }
    }
}

/// Counts what passes in a channel, and tells the channel's log.
#[derive(Debug)]
pub struct Meter {
    pub log: Box<dyn ChannelLog>,
    to_container: AtomicU64,
    to_client: AtomicU64,
}

impl Meter {
    pub fn new(log: Box<dyn ChannelLog>) -> Self {
        Self { log, to_container: AtomicU64::new(0), to_client: AtomicU64::new(0) }
    }

    pub fn passed(&self, direction: Direction, bytes: &[u8]) {
        let count = match direction {
            Direction::ToContainer => &self.to_container,
            Direction::ToClient { .. } => &self.to_client,
        };
        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.log.passed(direction, bytes);
    }

    /// What has passed so far; a channel counts as a request.
    pub fn usage(&self) -> Usage {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Usage { requests: 1, bytes_in: of(&self.to_container), bytes_out: of(&self.to_client) }
    }
}

/// Lets a side send as much again as was taken of what it sent.
#[derive(Debug)]
pub struct Taken<'a, S: From<(ChannelId, ChannelMsg)>> {
    from: &'a End<S>,
    window: Window,
}

impl<'a, S: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static> Taken<'a, S> {
    pub fn new(from: &'a End<S>, windows: &Windows) -> Self {
        Self { from, window: windows.window() }
    }

    /// # Errors
    /// The connection is over.
    pub async fn add(&mut self, bytes: usize) -> Result<(), russh::Error> {
        match self.window.taken(bytes, self.from.inbox.is_empty()) {
            0 => Ok(()),
            more => self.from.half.consumed(more).await,
        }
    }
}

/// Both sides of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    pub client: &'a ClientEnd,
    pub container: &'a ContainerEnd,
}

/// Serves a channel until the container has closed it and the client has all that was sent before, a connection is over,
/// or `refused` resolves. A client may close first, as OpenSSH's does once output and input have ended: it is told all the
/// same how its program ends, whenever that is.
/// The client's side of a session that is ended stays open: closed, it would have the client leave before it is told why.
pub async fn relay(pair: Pair<'_>, session: &Session, meter: &Meter, refused: impl Future<Output = ()>) {
    let Pair { client, container } = pair;
    let windows = &session.service.windows;
    let up = async {
        let overdue = async {
            client.inbox.closed().await;
            tokio::time::sleep(LAST_BYTES_TIMEOUT).await;
        };
        tokio::select! {
            _ = pass_up(pair, windows, meter) => {}
            () = overdue => {}
        }
        let _ = container.half.close().await;
        std::future::pending().await
    };
    tokio::select! {
        () = up => {}
        _ = pass_down(pair, windows, &session.to_client, meter) => {}
        () = refused => {}
    }
    // Failing means that its connection is over; what is closed already stays so.
    let _ = container.half.close().await;
    if !session.kill.is_asked() {
        let _ = client.half.close().await;
    }
}

async fn pass_up(pair: Pair<'_>, windows: &Windows, meter: &Meter) -> Result<(), russh::Error> {
    let Pair { client, container } = pair;
    let mut taken = Taken::new(client, windows);
    loop {
        match client.inbox.next().await {
            Item::Bytes(stream, bytes) => {
                meter.passed(Direction::ToContainer, &bytes);
                let length = bytes.len();
                container.send(stream, bytes).await?;
                taken.add(length).await?;
            }
            Item::Eof => container.half.eof().await?,
            // Clients run nothing that could end.
            Item::Note(_) => {}
            Item::Closed => return Ok(()),
        }
    }
}

async fn pass_down(pair: Pair<'_>, windows: &Windows, to_client: &Handle, meter: &Meter) -> Result<(), russh::Error> {
    let Pair { client, container } = pair;
    let mut taken = Taken::new(container, windows);
    loop {
        match container.inbox.next().await {
            Item::Bytes(stream, bytes) => {
                meter.passed(Direction::ToClient { is_stderr: stream != Stream::Main }, &bytes);
                let length = bytes.len();
                tokio::select! {
                    sent = client.send(stream, bytes) => sent?,
                    // It takes no more; what is left goes nowhere, and the program's end is yet to come.
                    () = client.inbox.closed() => {}
                }
                taken.add(length).await?;
            }
            Item::Eof => client.half.eof().await?,
            Item::Note(note) => pass_note(note, client, to_client).await?,
            Item::Closed => return Ok(()),
        }
    }
}

async fn pass_note(note: Note, client: &ClientEnd, to_client: &Handle) -> Result<(), russh::Error> {
    let id = client.half.id();
    let sent = match note {
        Note::ExitStatus(status) => return client.half.exit_status(status).await,
        Note::EndOfWrite => return client.half.other_request(false, "eow@openssh.com", Vec::new()).await,
        Note::ExitSignal { signal, core_dumped, message, language } => {
            to_client.exit_signal_request(id, signal, core_dumped, message, language).await
        }
        Note::XonXoff(client_can_do) => to_client.xon_xoff_request(id, client_can_do).await,
    };
    sent.map_err(|()| russh::Error::SendError)
}
