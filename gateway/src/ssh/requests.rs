//! What a client asks of a channel that is open: passed on to the container, whose answer is the answer.

use std::time::Duration;

use russh::{Pty, Sig};

use crate::ssh::channel::ContainerEnd;
use crate::ssh::program::{self, Scene, Wanted};
use crate::ssh::session::{Line, Session, Way};
use crate::ssh::session_events::{Begun, TerminalSize};

/// Longest wait for a container's answer. Meanwhile nothing else of the connection is read: answers have to come in the
/// order of the requests.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A terminal that is asked for.
#[derive(Debug)]
pub struct Terminal<'a> {
    pub kind: &'a str,
    pub columns: u32,
    pub rows: u32,
    pub width_pixels: u32,
    pub height_pixels: u32,
    pub modes: &'a [(Pty, u32)],
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

    pub async fn terminal(&self, line: &Line, wanted: Terminal<'_>) -> bool {
        let Terminal { kind, columns, rows, width_pixels, height_pixels, modes } = wanted;
        let is_done = match &line.way {
            Way::Sshd(end) => {
                let sending = end.half.request_pty(true, kind, columns, rows, width_pixels, height_pixels, modes);
                self.ask(end, sending).await
            }
            Way::Program(stage) => stage.set_terminal(kind, program::size(columns, rows)),
        };
        if is_done {
            line.meter.log.terminal(TerminalSize { columns, rows });
        }
        is_done
    }

    pub async fn resize(&self, line: &Line, columns: u32, rows: u32, pixels: (u32, u32)) {
        line.meter.log.terminal(TerminalSize { columns, rows });
        match &line.way {
            // Failing means that the container's connection is over, and the channel with it.
            Way::Sshd(end) => drop(end.half.window_change(columns, rows, pixels.0, pixels.1).await),
            Way::Program(stage) => stage.resize(program::size(columns, rows)),
        }
    }

    pub async fn set_variable(&self, line: &Line, name: &str, value: &str) -> bool {
        match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.set_env(true, name, value)).await,
            Way::Program(stage) => stage.set_variable(name, value),
        }
    }

    pub async fn shell(&self, line: &Line) -> bool {
        let is_done = match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.request_shell(true)).await,
            Way::Program(stage) => self.scene().is_some_and(|scene| stage.start(Wanted::Shell, scene)),
        };
        line.meter.log.began(Begun::Shell);
        is_done
    }

    pub async fn command(&self, line: &Line, command: &[u8]) -> bool {
        let text = String::from_utf8_lossy(command).into_owned();
        line.meter.log.began(Begun::Command(text));
        match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.exec(true, command)).await,
            Way::Program(stage) => {
                // A platform takes text, which a NUL would cut.
                let text = String::from_utf8(command.to_vec()).ok().filter(|text| !text.contains('\0'));
                let ready = text.zip(self.scene());
                ready.is_some_and(|(text, scene)| stage.start(Wanted::Command(text), scene))
            }
        }
    }

    pub async fn subsystem(&self, line: &Line, name: &str) -> bool {
        line.meter.log.began(Begun::Subsystem(name.to_owned()));
        match &line.way {
            Way::Sshd(end) => self.ask(end, end.half.request_subsystem(true, name)).await,
            Way::Program(stage) if name == "sftp" => self.scene().is_some_and(|scene| stage.start(Wanted::Sftp, scene)),
            Way::Program(_) => false,
        }
    }

    pub async fn agent(&self, line: &Line) -> bool {
        let Way::Sshd(end) = &line.way else { return false };
        self.asked_for().set_agent();
        self.ask(end, end.half.agent_forward(true)).await
    }

    pub async fn x11(&self, line: &Line, is_single: bool, protocol: &str, cookie: &str, screen: u32) -> bool {
        let Way::Sshd(end) = &line.way else { return false };
        self.asked_for().set_x11();
        self.ask(end, end.half.request_x11(true, is_single, protocol, cookie, screen)).await
    }

    pub async fn signal(&self, line: &Line, signal: Sig) {
        match &line.way {
            // Failing means that the container's connection is over, and the channel with it.
            Way::Sshd(end) => drop(end.half.signal(signal).await),
            Way::Program(stage) => stage.signal(&signal),
        }
    }

    /// `break` (RFC 4335) is for the terminal in the container; nothing else that is unknown here is passed on.
    pub async fn other(&self, line: &Line, name: &str, data: &[u8]) -> bool {
        match &line.way {
            Way::Sshd(end) if name == "break" => self.ask(end, end.half.other_request(true, name, data)).await,
            Way::Sshd(_) | Way::Program(_) => false,
        }
    }

    fn scene(&self) -> Option<Scene> {
        let crate::ssh::admission::Way::Container { id, user } = &self.admission.way else { return None };
        Some(Scene {
            programs: std::sync::Arc::clone(&self.service.programs),
            container: *id,
            user: user.clone(),
            to_client: self.to_client.clone(),
            kill: self.kill.clone(),
            windows: self.service.windows.clone(),
        })
    }
}
