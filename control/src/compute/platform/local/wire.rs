//! What the processes of a container say to each other and to edd over Unix sockets: frames, each of a kind, a length
//! and that many bytes.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// The largest frame: an exec with a long environment.
const MAX_FRAME_BYTES: u32 = 1024 * 1024;
/// A frame's kind and length.
const HEAD_BYTES: usize = 5;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// JSON.
    Message = 1,
    /// Bytes for a program's input; each is answered with a `Taken`, so that few are under way.
    Stdin,
    EndOfInput,
    /// JSON: columns and rows.
    Resize,
    /// A signal's name.
    Signal,
    Stdout,
    Stderr,
    /// The program has the bytes of one `Stdin`.
    Taken,
    /// JSON: how the program ended. The last frame.
    Exit,
    /// Why the other side does not do it, in words. The last frame.
    Refused,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Message,
        Self::Stdin,
        Self::EndOfInput,
        Self::Resize,
        Self::Signal,
        Self::Stdout,
        Self::Stderr,
        Self::Taken,
        Self::Exit,
        Self::Refused,
    ];
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Bytes,
}

impl Frame {
    pub(super) fn new(kind: Kind, payload: impl Into<Bytes>) -> Self {
        Self { kind, payload: payload.into() }
    }

    pub(super) fn json(kind: Kind, value: &impl Serialize) -> io::Result<Self> {
        Ok(Self::new(kind, serde_json::to_vec(value)?))
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.payload)?)
    }

    /// The text of a `Refused` or a `Signal`.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The next frame; none at the end of the connection. Not to be cut off: the rest would be read as a head.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let kind = match from.read_u8().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        let kind = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or_else(|| io::Error::other("a frame of an unknown kind"))?;
        let bytes = from.read_u32().await?;
        if bytes > MAX_FRAME_BYTES {
            return Err(io::Error::other(format!("a frame of {bytes} bytes; at most {MAX_FRAME_BYTES} are taken")));
        }
        let mut payload = vec![0; bytes as usize];
        from.read_exact(&mut payload).await?;
        Ok(Some(Self::new(kind, payload)))
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let bytes = u32::try_from(self.payload.len()).ok().filter(|bytes| *bytes <= MAX_FRAME_BYTES);
        let bytes = bytes.ok_or_else(|| io::Error::other(format!("a frame is larger than {MAX_FRAME_BYTES} bytes")))?;
        let mut whole = BytesMut::with_capacity(HEAD_BYTES + self.payload.len());
        whole.put_u8(self.kind as u8);
        whole.put_u32(bytes);
        whole.put_slice(&self.payload);
        to.write_all(&whole).await
    }
}

/// Says `value` as a message.
pub(super) async fn say(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    Frame::json(Kind::Message, value)?.write(to).await
}

/// The next message; none at the end of the connection.
pub(super) async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    match Frame::read(from).await? {
        Some(frame) if frame.kind == Kind::Message => frame.parse().map(Some),
        Some(frame) => Err(io::Error::other(format!("a message is due, not a {:?}", frame.kind))),
        None => Ok(None),
    }
}

/// The socket on which a container's first process takes sessions.
const SOCKET: &str = "control.sock";

/// Runs `action` on a short name of the socket in `dir`: a socket's own name has at most 107 bytes.
fn at_socket<T>(dir: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = std::fs::File::open(dir)?;
    action(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())))
}

/// Listens in a container's directory.
pub(super) fn listen(dir: &Path) -> io::Result<tokio::net::UnixListener> {
    let listener = at_socket(dir, |path| {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::net::UnixListener::bind(path)
    })?;
    listener.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(listener)
}

/// Connects to who listens in a container's directory.
pub(super) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let stream = at_socket(dir, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The connection to who started this process, which is its standard input.
pub(super) fn parent() -> io::Result<UnixStream> {
    let fd = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_said() {
        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        for kind in Kind::ALL {
            Frame::new(kind, vec![kind as u8; 3]).write(&mut near).await.expect("written");
        }
        drop(near);
        for kind in Kind::ALL {
            let frame = Frame::read(&mut far).await.expect("read");
            assert_eq!(frame, Some(Frame::new(kind, vec![kind as u8; 3])));
        }
        assert_eq!(Frame::read(&mut far).await.expect("read"), None);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        for bytes in [&[0, 0, 0, 0, 0][..], &[200, 0, 0, 0, 0], &[1, 255, 255, 255, 255], &[1, 0, 0, 0, 9, 1]] {
            let (mut near, mut far) = UnixStream::pair().expect("a pair");
            near.write_all(bytes).await.expect("written");
            drop(near);
            Frame::read(&mut far).await.expect_err("no frame");
        }
        let (mut near, _far) = UnixStream::pair().expect("a pair");
        let frame = Frame::new(Kind::Stdin, vec![0; MAX_FRAME_BYTES as usize + 1]);
        frame.write(&mut near).await.expect_err("too large");
    }

    #[tokio::test]
    async fn a_directory_with_a_long_name_has_a_socket_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("x".repeat(200));
        std::fs::create_dir(&dir).expect("made");
        for _ in 0..2 {
            let listener = listen(&dir).expect("listens, over a stale socket too");
            let near = connect(&dir).expect("connects");
            let pid = near.peer_cred().expect("its owner").pid();
            assert_eq!(pid, Some(std::process::id().cast_signed()));
            listener.accept().await.expect("accepts");
        }
    }
}
