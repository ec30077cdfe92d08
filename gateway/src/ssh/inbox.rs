//! What one end of a channel has sent and the other has not taken yet.
//!
//! A session's loop puts things in and never waits for it: what may be on its way is bounded by the channel's window,
//! which grows with what is taken and not before. So a channel that stands still holds up no other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use russh::{ChannelId, Sig};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// Largest piece that is handed on, in bytes.
const MAX_PIECE_BYTES: usize = 64 * 1024;
/// What is not bytes and waits for its turn. A container tells of an exit once; more is noise.
const MAX_NOTES: usize = 8;

/// Which of a channel's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Main,
    /// Extended data of this type; 1 is standard error.
    Extended(u32),
}

/// What a container says about a program, in order with what the program wrote.
#[derive(Clone, Debug)]
pub enum Note {
    ExitStatus(u32),
    ExitSignal {
        signal: Sig,
        core_dumped: bool,
        message: String,
        language: String,
    },
    XonXoff(bool),
    /// `eow@openssh.com`: nobody reads the program's input any more.
    EndOfWrite,
}

/// The next thing in an inbox.
#[derive(Debug)]
pub enum Item {
    Bytes(Stream, Bytes),
    Note(Note),
    /// No more bytes come.
    Eof,
    /// The end is closed, and all that came before was taken.
    Closed,
}

/// One end's inbox.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    bytes: BytesMut,
    /// How `bytes` are divided among the streams.
    runs: VecDeque<(Stream, usize)>,
    notes: VecDeque<Note>,
    eof: Eof,
    /// Who waits for an answer to a request, in the order of asking.
    asked: VecDeque<oneshot::Sender<bool>>,
    /// So many have to say something before the next thing is taken.
    holds: usize,
}

#[derive(Debug, Default, PartialEq)]
enum Eof {
    #[default]
    NotYet,
    Arrived,
    Taken,
}

impl Inbox {
    /// Bytes came.
    pub fn push(&self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        state.bytes.extend_from_slice(bytes);
        match state.runs.back_mut() {
            Some((last, length)) if *last == stream => *length += bytes.len(),
            _ => state.runs.push_back((stream, bytes.len())),
        }
        drop(state);
        self.changed.notify_one();
    }

    pub fn note(&self, note: Note) {
        let mut state = self.state();
        if state.notes.len() < MAX_NOTES {
            state.notes.push_back(note);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub fn eof(&self) {
        let mut state = self.state();
        if state.eof == Eof::NotYet {
            state.eof = Eof::Arrived;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing more comes, and no request is answered any more.
    pub fn close(&self) {
        let mut state = self.state();
        self.closed.cancel();
        state.asked.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// Whether no bytes wait.
    pub fn is_empty(&self) -> bool {
        self.state().bytes.is_empty()
    }

    /// Resolves when it is closed, whether all was taken or not.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Resolves with the answer to the next request that is sent, or fails when none comes any more.
    pub fn ask(&self) -> oneshot::Receiver<bool> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if !self.closed.is_cancelled() {
            state.asked.push_back(sender);
        }
        receiver
    }

    /// The oldest request that was not answered yet is. What comes after the answer is held until whoever asked has
    /// passed it on.
    pub fn answer(&self, yes: bool) {
        let mut state = self.state();
        // Whoever asked may have given up.
        if state.asked.pop_front().is_some_and(|asked| asked.send(yes).is_ok()) {
            state.holds += 1;
        }
    }

    /// Nothing is taken until there were as many releases as holds.
    pub fn hold(&self) {
        self.state().holds += 1;
    }

    pub fn release(&self) {
        let mut state = self.state();
        state.holds = state.holds.saturating_sub(1);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for the next thing. For one task at a time.
    pub async fn next(&self) -> Item {
        loop {
            // Looked at first: what came before the end is not missed.
            let is_closed = self.closed.is_cancelled();
            {
                let mut state = self.state();
                match state.take() {
                    Some(item) => return item,
                    None if is_closed && state.holds == 0 => return Item::Closed,
                    None => {}
                }
            }
            self.changed.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Item> {
        if self.holds > 0 {
            return None;
        }
        if let Some((stream, length)) = self.runs.front_mut() {
            let piece = (*length).min(MAX_PIECE_BYTES);
            let stream = *stream;
            *length -= piece;
            if *length == 0 {
                self.runs.pop_front();
            }
            let bytes = self.bytes.split_to(piece).freeze();
            if self.bytes.is_empty() {
                // A channel that idles keeps no buffer.
                self.bytes = BytesMut::new();
            }
            return Some(Item::Bytes(stream, bytes));
        }
        if let Some(note) = self.notes.pop_front() {
            return Some(Item::Note(note));
        }
        if self.eof == Eof::Arrived {
            self.eof = Eof::Taken;
            return Some(Item::Eof);
        }
        None
    }
}

/// The inboxes of a connection, by the channel's number at this end.
#[derive(Clone, Debug, Default)]
pub struct Inboxes(Arc<Mutex<Boxes>>);

#[derive(Debug, Default)]
struct Boxes {
    by_channel: HashMap<ChannelId, Arc<Inbox>>,
    /// The connection is.
    is_over: bool,
}

impl Inboxes {
    /// The inbox of a channel, which is made by whoever needs it first. A closed one after the end of the connection.
    pub fn open(&self, id: ChannelId) -> Arc<Inbox> {
        let mut boxes = self.lock();
        let is_over = boxes.is_over;
        let inbox = boxes.by_channel.entry(id).or_default();
        if is_over {
            inbox.close();
        }
        Arc::clone(inbox)
    }

    pub fn get(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.lock().by_channel.get(&id).cloned()
    }

    pub fn remove(&self, id: ChannelId) {
        self.lock().by_channel.remove(&id);
    }

    /// The connection is over.
    pub fn close_all(&self) {
        let mut boxes = self.lock();
        boxes.is_over = true;
        boxes.by_channel.values().for_each(|inbox| inbox.close());
    }

    fn lock(&self) -> MutexGuard<'_, Boxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(inbox: &Inbox) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let item = inbox.next().await;
            let text = match &item {
                Item::Bytes(stream, bytes) => format!("{stream:?} {}", String::from_utf8_lossy(bytes)),
                other => format!("{other:?}"),
            };
            all.push(text);
            if matches!(item, Item::Closed) {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn the_end_comes_after_all_that_was_sent_before() {
        let inbox = Inbox::default();
        inbox.push(Stream::Main, b"a");
        inbox.push(Stream::Main, b"b");
        inbox.push(Stream::Extended(1), b"c");
        inbox.note(Note::ExitStatus(3));
        inbox.push(Stream::Main, b"d");
        inbox.eof();
        inbox.close();
        let expected = ["Main ab", "Extended(1) c", "Main d", "Note(ExitStatus(3))", "Eof", "Closed"];
        assert_eq!(taken(&inbox).await, expected);
    }

    #[tokio::test]
    async fn large_runs_are_handed_on_in_pieces_and_nothing_is_kept_after() {
        let inbox = Inbox::default();
        inbox.push(Stream::Main, &vec![7; MAX_PIECE_BYTES + 1]);
        for length in [MAX_PIECE_BYTES, 1] {
            let Item::Bytes(Stream::Main, bytes) = inbox.next().await else { panic!("bytes") };
            assert_eq!(bytes.len(), length);
        }
        assert_eq!(inbox.state().bytes.capacity(), 0);
    }

    #[tokio::test]
    async fn requests_are_answered_in_order_and_none_after_the_end() {
        let inbox = Inbox::default();
        let (first, second, third) = (inbox.ask(), inbox.ask(), inbox.ask());
        inbox.answer(true);
        inbox.answer(false);
        inbox.close();
        assert_eq!((first.await, second.await), (Ok(true), Ok(false)));
        assert!(third.await.is_err() && inbox.ask().await.is_err());
    }

    #[tokio::test]
    async fn what_is_held_is_taken_after_as_many_releases() {
        let inbox = Inbox::default();
        let (first, second) = (inbox.ask(), inbox.ask());
        drop(second);
        inbox.answer(true);
        inbox.answer(true);
        inbox.hold();
        inbox.push(Stream::Main, b"a");
        inbox.close();
        // Whoever asked passes the answer on; the other one has given up.
        for _ in 0..2 {
            assert!(tokio::time::timeout(std::time::Duration::ZERO, inbox.next()).await.is_err());
            inbox.release();
        }
        assert!(matches!(inbox.next().await, Item::Bytes(..)) && matches!(inbox.next().await, Item::Closed));
        assert_eq!(first.await, Ok(true));
    }

    #[test]
    fn notes_are_few() {
        let inbox = Inbox::default();
        (0..1000).for_each(|_| inbox.note(Note::EndOfWrite));
        assert_eq!(inbox.state().notes.len(), MAX_NOTES);
    }
}
