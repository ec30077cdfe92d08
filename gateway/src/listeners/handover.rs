//! A new process takes the listening sockets over from the old one, so that an upgrade refuses no
//! connection: the old process passes its sockets (SCM_RIGHTS), goes on until the new one says that
//! it serves, then drains and exits.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

/// Sockets that one handover may carry, which is the kernel's own limit. The others are bound by the successor.
const MAX_SOCKETS: usize = 253;
/// Longest wait for the other process at each step.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// What a passed socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Http,
    Https,
    Ssh,
    Admin,
    /// A port of containers; which one, the socket tells.
    Dynamic,
}

/// The sockets, as both processes name them.
pub type Sockets = Vec<(Role, std::net::TcpListener)>;

/// Where the gateway that serves `data_dir` can be reached.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("gateway.sock")
}

/// Why a handover failed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("no gateway answers at {}: {source}; start one without --takeover first", path.display())]
    NobodyThere { path: PathBuf, source: io::Error },
    #[error("the running gateway did not pass its sockets: {0}")]
    Broken(#[from] io::Error),
}

/// The new process's side: holds the line until [`Takeover::ready`].
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
}

/// Asks the gateway at `path` for its sockets. Blocks.
pub fn take(path: &Path) -> Result<(Takeover, Sockets), HandoverError> {
    let stream =
        UnixStream::connect(path).map_err(|source| HandoverError::NobodyThere { path: path.to_owned(), source })?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    let (roles, fds) = receive(&stream)?;
    if roles.len() != fds.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "names and sockets differ in number").into());
    }
    let sockets = roles.into_iter().zip(fds).map(|(role, fd)| (role, std::net::TcpListener::from(fd))).collect();
    Ok((Takeover { stream }, sockets))
}

impl Takeover {
    /// Tells the old process that this one serves; it drains and exits. Blocks.
    pub fn ready(mut self) -> io::Result<()> {
        self.stream.write_all(b"ready\n")
    }
}

/// The old process's side. Its socket file stays behind; the next process replaces it.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
}

/// Listens for a successor at `path`; a stale socket file is replaced.
pub fn offer(path: &Path) -> io::Result<Offer> {
    // Bound beside and renamed, so that there is no moment without a reachable gateway.
    let fresh = path.with_extension(format!("sock.{}", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(Offer { listener })
}

impl Offer {
    /// Waits for a successor, passes it the `sockets` that there are then, and returns when it says that it serves. One
    /// that dies on the way changes nothing; the next one is waited for. Blocks.
    pub fn wait(&self, sockets: impl Fn() -> io::Result<Vec<(Role, OwnedFd)>>) -> io::Result<()> {
        loop {
            let (stream, _) = self.listener.accept()?;
            match sockets().and_then(|sockets| serve(stream, &sockets)) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "a takeover was begun and not finished; serving on"),
            }
        }
    }
}

fn serve(mut stream: UnixStream, sockets: &[(Role, OwnedFd)]) -> io::Result<()> {
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    send(&stream, sockets)?;
    let mut word = [0; 6];
    stream.read_exact(&mut word)?;
    if &word == b"ready\n" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn send(stream: &UnixStream, sockets: &[(Role, OwnedFd)]) -> io::Result<()> {
    // The ports of containers stand behind the gateway's own.
    let sockets = &sockets[..sockets.len().min(MAX_SOCKETS)];
    let roles: Vec<Role> = sockets.iter().map(|(role, _)| *role).collect();
    let message = serde_json::to_vec(&roles)?;
    let fds: Vec<_> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets for one handover"));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<Role>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut message = vec![0; MAX_MESSAGE_BYTES];
    let received =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = part {
            fds.extend(passed);
        }
    }
    Ok((serde_json::from_slice(&message[..received.bytes])?, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_change_hands_and_keep_listening() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let old = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = old.local_addr().unwrap();
        let passed = old.try_clone().unwrap();
        let offer = offer(&path).unwrap();
        let sockets = move || Ok(vec![(Role::Http, OwnedFd::from(passed.try_clone()?))]);
        let waiting = std::thread::spawn(move || offer.wait(sockets));

        // A successor that dies in between changes nothing.
        drop(take(&path).unwrap());

        let (takeover, sockets) = take(&path).unwrap();
        takeover.ready().unwrap();
        waiting.join().unwrap().unwrap();
        drop(old);
        assert_eq!(sockets[0].0, Role::Http);
        let client = std::net::TcpStream::connect(address).unwrap();
        let (_, from) = sockets[0].1.accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
    }

    #[test]
    fn nobody_there_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = take(&socket_path(dir.path())).unwrap_err();
        assert!(error.to_string().contains("without --takeover"), "{error}");
    }
}
