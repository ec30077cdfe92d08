//! What was shown on the terminals of sessions, as asciicast files (version 2), for those containers whose operator wants
//! it. Input is not kept: it has passwords that no terminal shows.
//!
//! A thread of its own writes them. What it is too slow for is left out, and the file says so; no session ever waits.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use edd_events::clock::{Clock, Micros};
use edd_proto::ContainerId;
use prometheus::IntCounter;
use uuid::Uuid;

use crate::ssh::asciicast::{Event, Screen, header};
use crate::ssh::session_events::{Begun, TerminalSize};

/// Of output that waits for the disk, of all recordings together; further output is left out.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// What a waiting piece costs besides its bytes.
const PIECE_BYTES: usize = 128;
/// Of one file, unless told otherwise.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// At a time; further sessions are not recorded, and the log says so.
const MAX_RECORDINGS: usize = 1024;

/// Whose sessions are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    All,
    Containers(BTreeSet<ContainerId>),
}

impl Recorded {
    fn has(&self, container: ContainerId) -> bool {
        match self {
            Self::All => true,
            Self::Containers(containers) => containers.contains(&container),
        }
    }
}

/// What recordings are made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Each container has a directory of its own in it.
    pub dir: PathBuf,
    pub recorded: Recorded,
    /// Of one file; what comes after is left out.
    pub max_file_bytes: u64,
    pub clock: Arc<dyn Clock>,
    /// Counts the bytes that recordings lack.
    pub lost: IntCounter,
}

/// Cheap handle on who writes recordings. The thread ends with the last of them.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    config: Config,
    queue: Arc<Queue>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.waiting().is_closed = true;
        self.queue.changed.notify_all();
    }
}

/// What is on its way to the disk.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Recordings that were begun and whose files are not closed yet.
    open: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    bytes: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Piece {
    tape: Arc<Tape>,
    at: Micros,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The first line.
    Header(String),
    Output(Box<[u8]>),
    Size(TerminalSize),
    End,
}

impl What {
    fn cost(&self) -> usize {
        PIECE_BYTES
            + match self {
                Self::Output(bytes) => bytes.len(),
                Self::Header(_) | Self::Size(_) | Self::End => 0,
            }
    }
}

/// One file.
#[derive(Debug)]
struct Tape {
    path: PathBuf,
    began: Micros,
    max_bytes: u64,
    /// Bytes that were left out since the file last said so.
    lost: AtomicU64,
    /// The writer's alone.
    reel: Mutex<Reel>,
}

#[derive(Debug, Default)]
struct Reel {
    /// None: before the first piece, after the last, and after a failure.
    file: Option<BufWriter<File>>,
    bytes: u64,
    screen: Screen,
}

/// A session's terminal while it is recorded. It ends with the handle.
#[derive(Debug)]
pub struct Recording {
    recorder: Recorder,
    tape: Arc<Tape>,
}

impl Recorder {
    /// Makes the directory and starts the thread.
    ///
    /// # Errors
    /// The directory cannot be made, or no thread started.
    pub fn start(config: Config) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        let queue = Arc::new(Queue::default());
        let taken = Arc::clone(&queue);
        std::thread::Builder::new().name("ssh-recorder".to_owned()).spawn(move || taken.write_all())?;
        Ok(Self(Arc::new(Handle { config, queue })))
    }

    /// Begins a file for a terminal of this container; none if it is not to be recorded.
    pub fn begin(&self, container: ContainerId, session: Uuid, size: TerminalSize, what: &Begun) -> Option<Recording> {
        let Handle { config, queue } = self.0.as_ref();
        if !config.recorded.has(container) {
            return None;
        }
        if queue.open.fetch_add(1, Ordering::Relaxed) >= MAX_RECORDINGS {
            queue.open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%container, %session, "a session is not recorded: {MAX_RECORDINGS} others are");
            return None;
        }
        let began = config.clock.now();
        // Several terminals of one session differ in when they began, or in what is left to chance.
        let name = format!("{session}-{began}-{:04x}.cast", rand::random::<u16>());
        let path = config.dir.join(container.as_str()).join(name);
        let tape = Arc::new(Tape {
            path,
            began,
            max_bytes: config.max_file_bytes,
            lost: AtomicU64::new(0),
            reel: Mutex::default(),
        });
        let recording = Recording { recorder: self.clone(), tape };
        recording.put(What::Header(header(container, session, began, size, what)));
        Some(recording)
    }
}

impl Recording {
    /// Bytes that the terminal shows.
    pub fn output(&self, bytes: &[u8]) {
        self.put(What::Output(bytes.into()));
    }

    /// The terminal has another size.
    pub fn resized(&self, size: TerminalSize) {
        self.put(What::Size(size));
    }

    fn put(&self, what: What) {
        let Handle { config, queue } = self.recorder.0.as_ref();
        let (cost, at) = (what.cost(), config.clock.now());
        let mut waiting = queue.waiting();
        // There is always room for a beginning and an end: there are no more of them than recordings.
        if let What::Output(bytes) = &what
            && waiting.bytes + cost > MAX_WAITING_BYTES
        {
            self.tape.lost.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            config.lost.inc_by(bytes.len() as u64);
            return;
        }
        if matches!(what, What::Size(_)) && waiting.bytes + cost > MAX_WAITING_BYTES {
            return;
        }
        waiting.bytes += cost;
        waiting.pieces.push_back(Piece { tape: Arc::clone(&self.tape), at, what });
        drop(waiting);
        queue.changed.notify_one();
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.put(What::End);
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until the last handle is gone and nothing waits.
    fn write_all(&self) {
        loop {
            let idle = |waiting: &mut Waiting| waiting.pieces.is_empty() && !waiting.is_closed;
            let mut waiting = self.changed.wait_while(self.waiting(), idle).unwrap_or_else(PoisonError::into_inner);
            let pieces = std::mem::take(&mut waiting.pieces);
            drop(waiting);
            if pieces.is_empty() {
                return;
            }
            let mut touched: Vec<Arc<Tape>> = Vec::new();
            for piece in pieces {
                let cost = piece.what.cost();
                if piece.tape.write(&piece) {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                } else if !touched.iter().any(|tape| Arc::ptr_eq(tape, &piece.tape)) {
                    touched.push(Arc::clone(&piece.tape));
                }
                // One by one: as long as the disk does not take it, it waits.
                self.waiting().bytes -= cost;
            }
            touched.iter().for_each(|tape| tape.flush());
        }
    }
}

impl Tape {
    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that was the end.
    fn write(&self, piece: &Piece) -> bool {
        let reel = &mut *self.reel();
        let written = match &piece.what {
            What::Header(line) => create(&self.path).and_then(|file| {
                reel.file = Some(BufWriter::new(file));
                reel.put(line)
            }),
            _ => self.add(reel, piece),
        };
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "a session's recording ends early");
            reel.file = None;
        }
        matches!(piece.what, What::End)
    }

    fn add(&self, reel: &mut Reel, piece: &Piece) -> io::Result<()> {
        let seconds = (piece.at - self.began).max(0) as f64 / 1e6;
        if reel.file.is_none() {
            return Ok(());
        }
        let missing = self.lost.swap(0, Ordering::Relaxed);
        if missing > 0 {
            reel.put(&Event::Mark(format!("{missing} bytes are missing: the disk was too slow")).line(seconds))?;
        }
        match &piece.what {
            What::Header(_) => {}
            What::Output(bytes) => {
                let text = reel.screen.decode(bytes);
                if reel.bytes + text.len() as u64 > self.max_bytes {
                    let remark = format!("the rest is missing: a recording has at most {} bytes", self.max_bytes);
                    reel.put(&Event::Mark(remark).line(seconds))?;
                    return reel.close();
                }
                if !text.is_empty() {
                    reel.put(&Event::Output(text).line(seconds))?;
                }
            }
            What::Size(size) => reel.put(&Event::Resize(*size).line(seconds))?,
            What::End => {
                let rest = reel.screen.finish();
                if !rest.is_empty() {
                    reel.put(&Event::Output(rest).line(seconds))?;
                }
                reel.close()?;
            }
        }
        Ok(())
    }

    fn flush(&self) {
        let reel = &mut *self.reel();
        if let Some(Err(error)) = reel.file.as_mut().map(Write::flush) {
            tracing::error!(path = %self.path.display(), %error, "a session's recording ends early");
            reel.file = None;
        }
    }
}

impl Reel {
    fn put(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.bytes += line.len() as u64 + 1;
        file.write_all(line.as_bytes())?;
        file.write_all(b"\n")
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |mut file| file.flush())
    }
}

/// Nobody but this process's user reads what somebody saw.
fn create(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests;
