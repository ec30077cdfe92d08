//! Sessions as the first process of a container runs them: one connection each.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::children::{self, Children, Ending};
use super::signal;
use super::tier::Tier;
use super::wire::{Frame, Kind};
use crate::compute::platform::{Exec, MAX_PIECE_BYTES, SESSION_PIECES, Size};

/// How long output may stay away, once a program has ended, before nobody waits for more: something that it left behind
/// may hold its pipes open for ever.
const QUIET: Duration = Duration::from_millis(300);
/// How long a program may take to end after its terminal was closed.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// What a terminal takes for the end of input.
const END_OF_TRANSMISSION: &[u8] = &[4];

/// All sessions of a container.
#[derive(Debug)]
pub(super) struct Sessions {
    tier: Tier,
    environment: Rc<BTreeMap<String, String>>,
    children: Rc<Children>,
}

impl Sessions {
    pub(super) fn new(tier: Tier, environment: BTreeMap<String, String>, children: Rc<Children>) -> Self {
        Self { tier, environment: Rc::new(environment), children }
    }

    /// Runs the session that begins on `stream`. What goes wrong with it is its own.
    pub(super) fn serve(&self, stream: UnixStream) {
        let (tier, environment, children) = (self.tier, self.environment.clone(), self.children.clone());
        tokio::task::spawn_local(async move {
            let (mut from, mut to) = stream.into_split();
            let Ok(Some(frame)) = Frame::read(&mut from).await else { return };
            let started = frame.parse::<Exec>().and_then(|exec| {
                let account = account(exec.user.as_deref(), tier)?;
                Program::start(&exec, &account, &environment, &children)
            });
            let answer = match &started {
                Ok(_) => Frame::new(Kind::Message, Bytes::from_static(b"null")),
                Err(error) => Frame::new(Kind::Refused, error.to_string()),
            };
            if let (Ok(()), Ok(program)) = (answer.write(&mut to).await, started) {
                program.run(from, Rc::new(Mutex::new(to))).await;
            }
        });
    }
}

/// What a session runs.
struct Program {
    pid: Pid,
    ending: Ending,
    stdin: Sender,
    outputs: Vec<(Kind, Receiver)>,
    terminal: Option<pty_process::blocking::Pty>,
}

impl Program {
    fn start(
        exec: &Exec,
        account: &Account,
        environment: &BTreeMap<String, String>,
        children: &Children,
    ) -> io::Result<Self> {
        let shell = [account.shell().to_owned(), "-l".to_owned()];
        let command = if exec.command.is_empty() { &shell[..] } else { &exec.command };
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let environment = account.environment(environment);
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&environment).envs(&exec.environment);
        let home = environment.get("HOME").map(Path::new).filter(|home| home.is_dir());
        command.current_dir(home.unwrap_or(Path::new("/")));
        let started = match exec.terminal {
            Some(size) => Self::on_terminal(command, account, size, children),
            None => Self::on_pipes(command, account, children),
        };
        started.map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))
    }

    fn on_pipes(mut command: Command, account: &Account, children: &Children) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = account.start(|| command.spawn())?;
        let pid = Pid::from_child(&child);
        let ending = children.add(pid.as_raw_pid());
        let missing = || io::Error::other("a pipe is missing");
        let stdin = Sender::from_owned_fd(OwnedFd::from(child.stdin.take().ok_or_else(missing)?))?;
        let stdout = Receiver::from_owned_fd(OwnedFd::from(child.stdout.take().ok_or_else(missing)?))?;
        let stderr = Receiver::from_owned_fd(OwnedFd::from(child.stderr.take().ok_or_else(missing)?))?;
        let outputs = vec![(Kind::Stdout, stdout), (Kind::Stderr, stderr)];
        Ok(Self { pid, ending, stdin, outputs, terminal: None })
    }

    fn on_terminal(command: Command, account: &Account, size: Size, children: &Children) -> io::Result<Self> {
        let (pty, pts) = pty_process::blocking::open().map_err(io::Error::other)?;
        pty.resize(size.into()).map_err(io::Error::other)?;
        if !account.is_root() {
            account.own(&pts)?;
        }
        let child = account.start(|| {
            pty_process::blocking::Command::from(command).spawn(pts).map_err(|error| match error {
                pty_process::Error::Io(error) => error,
                error => io::Error::other(error),
            })
        })?;
        let pid = Pid::from_child(&child);
        let ending = children.add(pid.as_raw_pid());
        rustix::io::ioctl_fionbio(&pty, true)?;
        // A terminal is read and written like a pipe.
        let end = || pty.as_fd().try_clone_to_owned();
        let (stdin, stdout) = (Sender::from_owned_fd_unchecked(end()?)?, Receiver::from_owned_fd_unchecked(end()?)?);
        Ok(Self { pid, ending, stdin, outputs: vec![(Kind::Stdout, stdout)], terminal: Some(pty) })
    }

    /// Carries bytes until the program has ended, or its user is gone.
    async fn run(self, from: OwnedReadHalf, to: Rc<Mutex<OwnedWriteHalf>>) {
        let Self { pid, ending, stdin, outputs, terminal } = self;
        let (pieces, input) = mpsc::channel(SESSION_PIECES);
        let has_terminal = terminal.is_some();
        let ended = CancellationToken::new();
        let finished = async {
            let pumps = outputs.into_iter().map(|(kind, output)| pump(kind, output, &to, &ended));
            let exit = async {
                let exit = children::ended(ending.clone()).await;
                ended.cancel();
                exit
            };
            let (exit, _) = tokio::join!(exit, futures_util::future::join_all(pumps));
            if let Ok(frame) = Frame::json(Kind::Exit, &exit) {
                // A user who is gone does not care.
                let _ = frame.write(&mut *to.lock().await).await;
            }
        };
        let feeding = async {
            feed(input, stdin, has_terminal, &to).await;
            std::future::pending::<()>().await;
        };
        let is_finished = tokio::select! {
            () = finished => true,
            () = feeding => false,
            () = obey(from, pid, terminal.as_ref(), pieces) => false,
        };
        if !is_finished {
            drop(terminal);
            hang_up(pid, ending).await;
        }
    }
}

impl From<Size> for pty_process::Size {
    fn from(size: Size) -> Self {
        Self::new(size.rows, size.columns)
    }
}

/// Sends what a program writes.
async fn pump(kind: Kind, mut output: Receiver, to: &Mutex<OwnedWriteHalf>, ended: &CancellationToken) {
    let mut piece = vec![0; MAX_PIECE_BYTES];
    loop {
        let quiet = async {
            ended.cancelled().await;
            tokio::time::sleep(QUIET).await;
        };
        let bytes = tokio::select! {
            biased;
            // A terminal whose programs are gone answers with an error instead of an end.
            read = output.read(&mut piece) => read.unwrap_or(0),
            () = quiet => 0,
        };
        let frame = Frame::new(kind, Bytes::copy_from_slice(&piece[..bytes]));
        if bytes == 0 || frame.write(&mut *to.lock().await).await.is_err() {
            return;
        }
    }
}

/// Writes input to a program and says so; ends the input after the last piece.
async fn feed(mut input: mpsc::Receiver<Bytes>, mut stdin: Sender, is_terminal: bool, to: &Mutex<OwnedWriteHalf>) {
    while let Some(piece) = input.recv().await {
        // One that does not read its input may still write.
        let _ = stdin.write_all(&piece).await;
        if Frame::new(Kind::Taken, Bytes::new()).write(&mut *to.lock().await).await.is_err() {
            return;
        }
    }
    if is_terminal {
        let _ = stdin.write_all(END_OF_TRANSMISSION).await;
    }
}

/// Does what the user says, until he is gone.
async fn obey(
    mut from: OwnedReadHalf,
    pid: Pid,
    terminal: Option<&pty_process::blocking::Pty>,
    pieces: mpsc::Sender<Bytes>,
) {
    let mut pieces = Some(pieces);
    while let Ok(Some(frame)) = Frame::read(&mut from).await {
        match frame.kind {
            Kind::Stdin => {
                // More than are allowed under way: not our edd.
                let Some(Ok(())) = pieces.as_ref().map(|pieces| pieces.try_send(frame.payload)) else { return };
            }
            Kind::EndOfInput => pieces = None,
            Kind::Resize => {
                if let (Some(terminal), Ok(size)) = (terminal, frame.parse::<Size>()) {
                    // A terminal that is being closed has no size.
                    let _ = terminal.resize(size.into());
                }
            }
            Kind::Signal => {
                if let Some(signal) = signal::named(&frame.text()) {
                    // As SSH servers do: to all of the command's processes, if any is left.
                    let _ = rustix::process::kill_process_group(pid, signal);
                }
            }
            _ => return,
        }
    }
}

/// Ends a program whose user is gone.
async fn hang_up(pid: Pid, ending: Ending) {
    // Gone already, if it fails; so below.
    let _ = rustix::process::kill_process_group(pid, Signal::HUP);
    if tokio::time::timeout(HANG_UP_TIMEOUT, children::ended(ending)).await.is_err() {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// Whom a session runs as. Where a container has not all of root's rights, nobody but root is in it.
fn account(user: Option<&str>, tier: Tier) -> io::Result<Account> {
    let account = Account::named(user.unwrap_or("root"))?;
    if tier != Tier::Root && !account.is_root() {
        let reason = "this machine cannot give containers users of their own: log in as root";
        return Err(io::Error::other(reason));
    }
    Ok(account)
}
