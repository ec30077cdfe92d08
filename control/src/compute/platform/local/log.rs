//! What a container's main process writes: two files of bounded size, read line by line.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::inotify;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// At this size a file becomes the old one, and the old one goes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// A longer line is told in pieces.
const MAX_LINE_BYTES: u64 = 16 * 1024;
const NEW: &str = "log";
const OLD: &str = "log.1";

/// Writes a log.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    file: File,
    written_bytes: u64,
}

impl Writer {
    /// Goes on with the log in `dir`.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(dir.join(NEW))?;
        let written_bytes = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), file, written_bytes })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written_bytes + bytes.len() as u64 > MAX_FILE_BYTES {
            std::fs::rename(self.dir.join(NEW), self.dir.join(OLD))?;
            *self = Self::open(&self.dir)?;
        }
        self.file.write_all(bytes)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a log from its older file on, and goes over to the newer one when they change places.
#[derive(Debug)]
struct Reader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    /// Of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Reader {
    fn open(dir: &Path) -> io::Result<Self> {
        let old = optional(File::open(dir.join(OLD)))?;
        let file = match old {
            Some(old) => Some(old),
            None => optional(File::open(dir.join(NEW)))?,
        };
        Ok(Self { dir: dir.to_owned(), file: file.map(BufReader::new), begun: Vec::new() })
    }

    /// The next whole line, or a piece of a long one; none when there is no more for now.
    fn line(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(new) = optional(File::open(self.dir.join(NEW)))? else { return Ok(None) };
                self.file = Some(BufReader::new(new));
                continue;
            };
            let room = MAX_LINE_BYTES.saturating_sub(self.begun.len() as u64);
            let read = file.by_ref().take(room).read_until(b'\n', &mut self.begun)?;
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                if self.begun.last() == Some(&b'\r') {
                    self.begun.pop();
                }
                return Ok(Some(std::mem::take(&mut self.begun).into()));
            }
            if self.begun.len() as u64 >= MAX_LINE_BYTES {
                return Ok(Some(std::mem::take(&mut self.begun).into()));
            }
            if read == 0 && !self.go_over()? {
                return Ok(None);
            }
        }
    }

    /// Opens the newer file if the one that was read to its end is not it any more.
    fn go_over(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let Some(new) = optional(File::open(self.dir.join(NEW)))? else { return Ok(false) };
        if new.metadata()?.ino() == file.get_ref().metadata()?.ino() {
            return Ok(false);
        }
        // What was written between the last read and the change.
        let position = file.stream_position()?;
        if file.get_ref().metadata()?.len() > position {
            file.seek(SeekFrom::Start(position))?;
            return Ok(true);
        }
        self.file = Some(BufReader::new(new));
        Ok(true)
    }

    /// A line that nobody will end.
    fn rest(&mut self) -> Option<Bytes> {
        (!self.begun.is_empty()).then(|| std::mem::take(&mut self.begun).into())
    }
}

fn optional(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Sends the newest `tail` lines of the log in `dir`, and then, while `runs` says so, those that come.
pub(super) async fn send(
    dir: &Path,
    tail: u32,
    follow: bool,
    runs: impl Fn() -> bool,
    to: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    // Watched before it is read, so that nothing comes in between.
    let mut changes = if follow { Some(Changes::watch(dir)?) } else { None };
    let mut reader = Reader::open(dir)?;
    let mut newest = VecDeque::new();
    while let Some(line) = next(&mut reader, follow)? {
        newest.push_back(line);
        if newest.len() > tail as usize {
            newest.pop_front();
        }
    }
    for line in newest {
        if to.send(line).await.is_err() {
            return Ok(());
        }
    }
    while let Some(changes) = &mut changes {
        let last = !runs();
        while let Some(line) = reader.line()? {
            if to.send(line).await.is_err() {
                return Ok(());
            }
        }
        if last {
            break;
        }
        tokio::select! {
            changed = changes.next() => changed?,
            () = to.closed() => return Ok(()),
        }
    }
    if let Some(rest) = reader.rest() {
        // Nobody waits for it any more if this fails.
        let _ = to.send(rest).await;
    }
    Ok(())
}

/// The next line; the last need not be whole where nobody waits for its end.
fn next(reader: &mut Reader, follow: bool) -> io::Result<Option<Bytes>> {
    let line = reader.line()?;
    Ok(line.or_else(|| if follow { None } else { reader.rest() }))
}

/// Tells that something in a directory changed.
#[derive(Debug)]
struct Changes(Receiver);

impl Changes {
    fn watch(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        let gone = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::MOVE_SELF;
        inotify::add_watch(&fd, dir, what | gone)?;
        // It is read like a pipe.
        Ok(Self(Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// What changed does not matter: it is looked at anyway.
    async fn next(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        self.0.read(&mut events).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    async fn tail(dir: &Path, tail: u32) -> Vec<Bytes> {
        let (to, mut from) = mpsc::channel(2048);
        send(dir, tail, false, || true, &to).await.expect("read");
        drop(to);
        let mut lines = Vec::new();
        while let Some(line) = from.recv().await {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn the_newest_lines_are_told_without_their_breaks() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(tail(folder.path(), 10).await.is_empty(), "no log yet");
        let mut writer = Writer::open(folder.path()).expect("a log");
        writer.write(b"one\ntwo\r\nthr").expect("written");
        writer.write(b"ee\nfour").expect("written");
        assert_eq!(tail(folder.path(), 3).await, ["two", "three", "four"]);
        assert_eq!(tail(folder.path(), 0).await, Vec::<Bytes>::new());
    }

    #[tokio::test]
    async fn two_files_are_all_that_a_log_takes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path()).expect("a log");
        let line = [vec![b'x'; 1023], b"\n".to_vec()].concat();
        for _ in 0..5000 {
            writer.write(&line).expect("written");
        }
        let bytes: u64 = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("a file").metadata().expect("its size").len())
            .sum();
        assert!(bytes <= 2 * MAX_FILE_BYTES, "{bytes}");
        assert_eq!(tail(folder.path(), 1500).await.len(), 1500, "lines come from both");
    }

    #[tokio::test]
    async fn a_line_without_end_is_told_in_pieces() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path()).expect("a log");
        writer.write(&vec![b'x'; 40 * 1024]).expect("written");
        let lines = tail(folder.path(), 10).await;
        assert_eq!(lines.iter().map(Bytes::len).collect::<Vec<_>>(), [16 * 1024, 16 * 1024, 8 * 1024]);
    }

    #[tokio::test]
    async fn who_follows_misses_nothing_while_files_change_places() {
        let folder = tempfile::tempdir().expect("a folder");
        let (to, mut from) = mpsc::channel(4);
        let runs = AtomicBool::new(true);
        let following = async {
            send(folder.path(), 0, true, || runs.load(Ordering::Relaxed), &to).await.expect("read");
            drop(to);
        };
        let mut writer = Writer::open(folder.path()).expect("a log");
        let writing = async {
            // Three changes.
            for number in 0..4000 {
                let line = format!("{number:01023}");
                writer.write(format!("{line}\n").as_bytes()).expect("written");
                assert_eq!(from.recv().await.expect("a line"), line);
            }
            runs.store(false, Ordering::Relaxed);
            writer.write(b"unfinished").expect("written");
            assert_eq!(from.recv().await.expect("the rest"), "unfinished");
            assert_eq!(from.recv().await, None);
        };
        tokio::join!(following, writing);
    }
}
