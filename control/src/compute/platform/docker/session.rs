//! What runs in a container besides its main process.
//!
//! The engine has no way to signal it. So every process of a session carries a mark in its environment, and a signal
//! is a second, short session that finds them by it.

use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rand::RngExt;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{message, unavailable};
use crate::compute::platform::{
    Control, Exec, Exit, Input, MAX_PIECE_BYTES, Output, PlatformError, SESSION_CONTROLS, SESSION_PIECES, Session, Size,
};

/// The variable that marks the processes of a session.
const MARK: &str = "EDD_SESSION";
/// Sends a signal, the second argument, to all whose environment has the first.
const SIGNAL: &str = r#"for p in /proc/[0-9]*; do grep -qs "$1" "$p/environ" && kill -s "$2" "${p#/proc/}"; done"#;
/// How processes are found out to be those of a shell that exits with 128 and the signal's number.
const SIGNALS: [(u8, &str); 9] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (6, "ABRT"),
    (9, "KILL"),
    (11, "SEGV"),
    (13, "PIPE"),
    (14, "ALRM"),
    (15, "TERM"),
];

/// Before each further try to give a terminal its size: podman refuses while it has not noticed yet that a session runs.
const RESIZE_PAUSES_MS: [u64; 4] = [20, 50, 100, 200];
/// After each try to end a session that nobody has any more.
const END_PAUSES_MS: [u64; 6] = [20, 50, 100, 500, 1000, 5000];
/// Longest wait for the engine to know whether what was started runs.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at that.
const BEGIN_POLL: Duration = Duration::from_millis(5);
/// Between two looks at whether a program whose output has ended has, too.
const EXIT_POLL_MIN: Duration = Duration::from_millis(5);
const EXIT_POLL_MAX: Duration = Duration::from_secs(1);

/// Runs what follows a name and a size, or a login shell, in the home and with the variables that `/etc/passwd` has for the
/// name. A terminal gets its size before anything asks for it: an engine sets it some time after the start.
const LOG_IN: &str = r#"
[ -z "$2" ] || stty rows "$2" columns "$3" 2>/dev/null
while IFS=: read -r name _ _ _ _ home shell; do
  [ "$name" = "$1" ] || continue
  USER=$name LOGNAME=$name HOME=$home SHELL=${shell:-/bin/sh}
  export USER LOGNAME HOME SHELL
  cd "$HOME" 2>/dev/null || cd /
  break
done < /etc/passwd
shift 3
[ $# -gt 0 ] || exec "${SHELL:-/bin/sh}" -l
exec "$@"
"#;

/// The user that the engine is told, and what it runs as that user.
fn command(exec: &Exec) -> (String, Vec<String>) {
    // An image may have none that is called root.
    let (user, name) = exec.user.as_deref().map_or(("0", "root"), |user| (user, user));
    if !exec.command.is_empty() && exec.user.is_none() && exec.terminal.is_none() {
        return (user.to_owned(), exec.command.clone());
    }
    let [rows, columns] = match exec.terminal {
        Some(Size { columns, rows }) => [rows, columns].map(|side| side.to_string()),
        None => [const { String::new() }; 2],
    };
    let log_in = ["/bin/sh", "-c", LOG_IN, "sh", name, &rows, &columns].map(str::to_owned);
    (user.to_owned(), log_in.into_iter().chain(exec.command.iter().cloned()).collect())
}

pub(super) async fn open(docker: &Docker, container: &str, exec: Exec) -> Result<Session, PlatformError> {
    let mark = format!("{MARK}={:016x}", rand::rng().random::<u64>());
    let (user, command) = command(&exec);
    let environment = exec.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let what = match &exec.user {
        Some(user) => format!("`{}` cannot be run in this container as `{user}`, if that is a user of it", command[0]),
        None => format!("`{}` cannot be run in this container", command[0]),
    };
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(exec.terminal.is_some()),
        env: Some(environment.chain([mark.clone()]).collect()),
        cmd: Some(command),
        user: Some(user),
        ..CreateExecOptions::default()
    };
    let created = docker.create_exec(container, options).await.map_err(unavailable)?.id;
    let start =
        StartExecOptions { detach: false, tty: exec.terminal.is_some(), output_capacity: Some(MAX_PIECE_BYTES) };
    let started = match docker.start_exec(&created, Some(start)).await {
        // Podman's word; Docker says nothing before it runs.
        Err(error) if message(&error).contains("unable to find user") => return Err(PlatformError::Impossible(what)),
        started => started.map_err(unavailable)?,
    };
    let StartExecResults::Attached { output, input } = started else {
        let lost = "the Docker engine started a session without its input and output";
        return Err(PlatformError::Unavailable(lost.to_owned()));
    };
    begun(docker, &created, what).await?;
    let session = Running { docker: docker.clone(), container: container.to_owned(), id: created, mark };
    if let Some(size) = exec.terminal {
        session.resize(size).await;
    }
    let (to_session, inputs) = mpsc::channel(SESSION_PIECES);
    let (control, controls) = mpsc::channel(SESSION_CONTROLS);
    let (outputs, from_session) = mpsc::channel(SESSION_PIECES);
    tokio::spawn(session.run((input, inputs), controls, (output, outputs)));
    Ok(Session { input: to_session, control, output: from_session })
}

/// Waits until it runs, or has run; `failure` says that it never will.
async fn begun(docker: &Docker, id: &str, failure: String) -> Result<(), PlatformError> {
    let deadline = Instant::now() + BEGIN_TIMEOUT;
    loop {
        let state = docker.inspect_exec(id).await.map_err(unavailable)?;
        let had_process = state.pid.unwrap_or_default() != 0;
        if had_process && (state.running == Some(true) || state.exit_code.is_some()) {
            return Ok(());
        }
        // What never had a process has a code that the engine made up.
        if state.running == Some(false) && state.exit_code.is_some_and(|code| code >= 126) {
            return Err(PlatformError::Impossible(failure));
        }
        if Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(BEGIN_POLL).await;
    }
}

struct Running {
    docker: Docker,
    container: String,
    id: String,
    mark: String,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

impl Running {
    async fn run(
        self,
        (mut input, mut inputs): (Pin<Box<dyn AsyncWrite + Send>>, mpsc::Receiver<Input>),
        mut controls: mpsc::Receiver<Control>,
        (mut output, outputs): (Pieces, mpsc::Sender<Output>),
    ) {
        let writing = async {
            while let Some(piece) = inputs.recv().await {
                match piece {
                    // It may have closed its input; what it still says counts.
                    Input::Bytes(bytes) => drop(input.write_all(&bytes).await),
                    Input::Eof => drop(input.shutdown().await),
                }
            }
            drop(input.shutdown().await);
            std::future::pending::<()>().await;
        };
        let controlling = async {
            while let Some(control) = controls.recv().await {
                match control {
                    Control::Resize(size) => self.resize(size).await,
                    Control::Signal(signal) => self.signal(&signal).await,
                }
            }
            std::future::pending::<()>().await;
        };
        let reading = async {
            while let Some(Ok(piece)) = output.next().await {
                let piece = match piece {
                    LogOutput::StdErr { message } => Output::Stderr(message),
                    LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message } => {
                        Output::Stdout(message)
                    }
                };
                if send(&outputs, piece).await.is_err() {
                    return false;
                }
            }
            true
        };
        let ending = async { if reading.await { Some(self.exit().await) } else { None } };
        let ended = tokio::select! {
            () = writing => None,
            () = controlling => None,
            ended = ending => ended,
            () = outputs.closed() => None,
        };
        match ended {
            Some(Some(exit)) => drop(outputs.send(Output::Exit(exit)).await),
            // Unknown is said by closing the channel without an exit.
            Some(None) => {}
            // Whoever had it is gone.
            None => self.end().await,
        }
    }

    async fn end(&self) {
        self.signal("HUP").await;
        for pause in END_PAUSES_MS.map(Duration::from_millis) {
            self.signal("KILL").await;
            tokio::time::sleep(pause).await;
            if !self.is_running().await {
                return;
            }
        }
        tracing::warn!(container = self.container, "a session that nobody has goes on: it does not get its signals");
    }

    async fn is_running(&self) -> bool {
        matches!(self.docker.inspect_exec(&self.id).await, Ok(state) if state.running == Some(true))
    }

    /// How it ended, once it has: a program may close its output long before, and the engine hears of an end a moment after
    /// that of the output.
    async fn exit(&self) -> Option<Exit> {
        let mut pause = EXIT_POLL_MIN;
        let code = loop {
            let state = self.docker.inspect_exec(&self.id).await.ok()?;
            if let (Some(false), Some(code)) = (state.running, state.exit_code) {
                break u8::try_from(code).ok()?;
            }
            tokio::time::sleep(pause).await;
            pause = EXIT_POLL_MAX.min(pause * 2);
        };
        let signal = SIGNALS.iter().find(|(number, _)| code == 128 + number);
        Some(signal.map_or(Exit::Code(code), |(_, name)| Exit::Signal((*name).to_owned())))
    }

    async fn resize(&self, size: Size) {
        let mut pauses = RESIZE_PAUSES_MS.into_iter().map(Duration::from_millis);
        loop {
            let options = ResizeExecOptions { height: size.rows, width: size.columns };
            let Err(error) = self.docker.resize_exec(&self.id, options).await else { return };
            let pause = if self.is_running().await { pauses.next() } else { None };
            let Some(pause) = pause else {
                tracing::debug!(%error, container = self.container, "a terminal keeps its size");
                return;
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn signal(&self, signal: &str) {
        if !signal.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            return;
        }
        let options = CreateExecOptions {
            cmd: Some(vec!["/bin/sh", "-c", SIGNAL, "sh", &self.mark, signal]),
            user: Some("0"),
            ..CreateExecOptions::default()
        };
        let send = async {
            let sender = self.docker.create_exec(&self.container, options).await?.id;
            self.docker.start_exec(&sender, Some(StartExecOptions { detach: true, ..Default::default() })).await
        };
        if let Err(error) = send.await {
            tracing::debug!(%error, container = self.container, signal, "a session did not get its signal");
        }
    }
}

/// In pieces of the size that readers are promised.
async fn send(outputs: &mpsc::Sender<Output>, piece: Output) -> Result<(), mpsc::error::SendError<Output>> {
    let (bytes, wrap): (Bytes, fn(Bytes) -> Output) = match piece {
        Output::Stdout(bytes) => (bytes, Output::Stdout),
        Output::Stderr(bytes) => (bytes, Output::Stderr),
        exit @ Output::Exit(_) => return outputs.send(exit).await,
    };
    for piece in bytes.chunks(MAX_PIECE_BYTES) {
        outputs.send(wrap(bytes.slice_ref(piece))).await?;
    }
    Ok(())
}
