//! A session channel of a container that has no sshd: a program of the platform's in its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use edd_proto::ContainerId;
use russh::Sig;
use russh::server::Handle;
use tokio::sync::mpsc;

use crate::ssh::channel::{ClientEnd, Meter, Taken};
use crate::ssh::exec::{
    Control, Exit, Input, MAX_PIECE_BYTES, Output, Program, Programs, Running, SESSION_CONTROLS, Size,
};
use crate::ssh::inbox::{Item, Stream};
use crate::ssh::kill_switch::KillSwitch;
use crate::ssh::session_events::Direction;
use crate::ssh::window::Windows;

/// Variables that a client may set, and the longest of them, in bytes.
const MAX_VARIABLES: usize = 64;
const MAX_VARIABLE_BYTES: usize = 4096;
/// What OpenSSH's standard error is in SSH.
const STDERR: Stream = Stream::Extended(1);
/// A command that could not be started, as shells have it.
const CANNOT_START: u32 = 126;

/// Where `sftp-server` is, by distribution; the last resort is the path.
const SFTP: &str = "for server in /usr/lib/openssh/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server \
     /usr/libexec/openssh/sftp-server; do [ -x \"$server\" ] && exec \"$server\"; done; exec sftp-server";

/// A session channel until its program runs, and the way to tell that of sizes and signals.
#[derive(Debug)]
pub struct Stage {
    client: ClientEnd,
    state: Mutex<State>,
    control: mpsc::Sender<Control>,
    meter: Arc<Meter>,
}

#[derive(Debug)]
struct State {
    environment: BTreeMap<String, String>,
    terminal: Option<Size>,
    /// Taken by the program that runs in the channel; a channel has one.
    waiting: Option<mpsc::Receiver<Control>>,
}

/// Where a program runs, and who is told of it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub programs: Arc<dyn Programs>,
    pub container: ContainerId,
    pub user: String,
    pub to_client: Handle,
    pub kill: KillSwitch,
    pub windows: Windows,
}

/// A program that is about to run.
#[derive(Debug)]
pub struct Performance {
    stage: Arc<Stage>,
    scene: Scene,
    program: Program,
    control: mpsc::Receiver<Control>,
}

impl Performance {
    /// Runs it until it ends or nobody wants it any more.
    pub fn begin(self) {
        let Self { stage, scene, program, control } = self;
        tokio::spawn(async move {
            let ended = scene.kill.token().run_until_cancelled(stage.run(&scene, program, control)).await;
            if ended.is_some() {
                // Failing means that the connection is over, and the channel with it.
                let _ = stage.client.half.close().await;
            }
            // The client's own goodbye is not told of any more.
            stage.client.inbox.close();
        });
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Shell,
    Command(String),
    Sftp,
}

impl Stage {
    pub fn new(client: ClientEnd, meter: Arc<Meter>) -> Self {
        let (control, waiting) = mpsc::channel(SESSION_CONTROLS);
        let state = State { environment: BTreeMap::new(), terminal: None, waiting: Some(waiting) };
        Self { client, state: Mutex::new(state), control, meter }
    }

    /// Whether the variable is set: the locale, as sshd's usual `AcceptEnv` has it.
    pub fn set_variable(&self, name: &str, value: &str) -> bool {
        let is_known = name == "LANG" || name.strip_prefix("LC_").is_some_and(is_variable);
        let mut state = self.state();
        let is_few = state.environment.len() < MAX_VARIABLES || state.environment.contains_key(name);
        let is_short = name.len() + value.len() <= MAX_VARIABLE_BYTES && !value.contains('\0');
        if !(is_known && is_few && is_short) {
            return false;
        }
        state.environment.insert(name.to_owned(), value.to_owned());
        true
    }

    /// Whether there will be a terminal.
    pub fn set_terminal(&self, kind: &str, size: Size) -> bool {
        let mut state = self.state();
        if state.waiting.is_none() || kind.len() > MAX_VARIABLE_BYTES || kind.contains('\0') {
            return false;
        }
        if !kind.is_empty() {
            state.environment.insert("TERM".to_owned(), kind.to_owned());
        }
        state.terminal = Some(size);
        true
    }

    /// A program that takes nothing at all misses it.
    pub fn resize(&self, size: Size) {
        let mut state = self.state();
        if state.waiting.is_some() {
            state.terminal = state.terminal.map(|_| size);
            return;
        }
        let _ = self.control.try_send(Control::Resize(size));
    }

    /// A program that takes nothing at all misses it, and one that does not run yet has none to take.
    pub fn signal(&self, signal: &Sig) {
        if self.state().waiting.is_none() {
            let _ = self.control.try_send(Control::Signal(name(signal)));
        }
    }

    /// What is wanted, to be begun. None: something runs here already.
    pub fn start(self: &Arc<Self>, wanted: Wanted, scene: Scene) -> Option<Performance> {
        let mut state = self.state();
        let control = state.waiting.take()?;
        let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let program = Program {
            command: match wanted {
                Wanted::Shell => Vec::new(),
                Wanted::Command(command) => shell(&command),
                Wanted::Sftp => shell(SFTP),
            },
            environment: std::mem::take(&mut state.environment),
            terminal: state.terminal,
            user: scene.user.clone(),
        };
        drop(state);
        Some(Performance { stage: Arc::clone(self), scene, program, control })
    }

    /// # Errors
    /// The connection is over.
    async fn run(
        &self,
        scene: &Scene,
        program: Program,
        mut steered: mpsc::Receiver<Control>,
    ) -> Result<(), russh::Error> {
        let starting = scene.programs.start(scene.container, program);
        let running = tokio::select! {
            running = starting => running,
            () = self.client.inbox.closed() => return Ok(()),
        };
        let Running { input, control, output } = match running {
            Ok(running) => running,
            Err(error) => {
                self.client.send(STDERR, Bytes::from(format!("edd: {error}\r\n"))).await?;
                self.client.half.exit_status(CANNOT_START).await?;
                return self.client.half.eof().await;
            }
        };
        let steering = async {
            // What a program that has ended is told is for nobody.
            while let Some(steer) = steered.recv().await {
                let _ = control.send(steer).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = self.give(input, &scene.windows) => ended,
            ended = self.take(scene, output) => ended,
            ended = steering => ended,
        }
    }

    /// Gives the program what the client sends, until that closes the channel.
    async fn give(&self, input: mpsc::Sender<Input>, windows: &Windows) -> Result<(), russh::Error> {
        let mut taken = Taken::new(&self.client, windows);
        loop {
            match self.client.inbox.next().await {
                Item::Bytes(Stream::Main, mut bytes) => {
                    let length = bytes.len();
                    self.meter.passed(Direction::ToContainer, &bytes);
                    while !bytes.is_empty() {
                        let piece = bytes.split_to(bytes.len().min(MAX_PIECE_BYTES));
                        send(&input, Input::Bytes(piece)).await;
                    }
                    taken.add(length).await?;
                }
                // Clients have no second stream; what comes in one is counted and dropped.
                Item::Bytes(_, bytes) => taken.add(bytes.len()).await?,
                Item::Eof => send(&input, Input::Eof).await,
                Item::Note(_) => {}
                Item::Closed => return Ok(()),
            }
        }
    }

    /// Gives the client what the program writes, and how it ends.
    async fn take(&self, scene: &Scene, mut output: mpsc::Receiver<Output>) -> Result<(), russh::Error> {
        let client = &self.client;
        while let Some(output) = output.recv().await {
            let (stream, bytes) = match output {
                Output::Stdout(bytes) => (Stream::Main, bytes),
                Output::Stderr(bytes) => (STDERR, bytes),
                Output::Exit(exit) => {
                    // First, for a client that closes upon the end of the output.
                    self.tell(exit, scene).await?;
                    return client.half.eof().await;
                }
            };
            self.meter.passed(Direction::ToClient { is_stderr: stream == STDERR }, &bytes);
            client.send(stream, bytes).await?;
        }
        let lost = Bytes::from_static(b"edd: the platform lost sight of the program\r\n");
        client.send(STDERR, lost).await?;
        client.half.eof().await
    }

    async fn tell(&self, exit: Exit, scene: &Scene) -> Result<(), russh::Error> {
        match exit {
            Exit::Code(code) => self.client.half.exit_status(code.into()).await,
            Exit::Signal(signal) => {
                let (id, signal) = (self.client.half.id(), Sig::Custom(signal));
                let told = scene.to_client.exit_signal_request(id, signal, false, String::new(), String::new()).await;
                told.map_err(|()| russh::Error::SendError)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program that has ended takes nothing more, and what it was sent is for nobody.
async fn send(input: &mpsc::Sender<Input>, what: Input) {
    let _ = input.send(what).await;
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// As RFC 4254 §6.10 spells it.
fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.chars().take(32).collect(),
        known => format!("{known:?}"),
    }
}

/// A size as terminals take it; what is larger is as large as they go.
pub fn size(columns: u32, rows: u32) -> Size {
    let clamp = |length: u32| u16::try_from(length).unwrap_or(u16::MAX);
    Size { columns: clamp(columns), rows: clamp(rows) }
}
