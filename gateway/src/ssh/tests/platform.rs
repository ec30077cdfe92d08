//! A platform without sshd, as far as tests need one.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::ContainerId;
use tokio::sync::mpsc;

use crate::ssh::exec::{
    Control, ExecError, Exit, Input, Output, Program, Programs, Running, SESSION_CONTROLS, SESSION_PIECES,
};

/// Runs `cat`, `deaf` (which takes no input), `exit N`, `kill NAME`, `err TEXT`, `signals` and `size`, and remembers what it was asked for.
#[derive(Debug, Default)]
pub struct Platform {
    pub started: Mutex<Vec<Program>>,
}

#[async_trait]
impl Programs for Platform {
    async fn start(&self, _container: ContainerId, program: Program) -> Result<Running, ExecError> {
        let script = program.command.last().cloned().unwrap_or_default();
        if script == "missing" {
            return Err(ExecError::Impossible("there is no such program".to_owned()));
        }
        let terminal = program.terminal;
        self.started.lock().unwrap().push(program);
        let (input, mut from_client) = mpsc::channel(SESSION_PIECES);
        let (control, mut controls) = mpsc::channel(SESSION_CONTROLS);
        let (to_client, output) = mpsc::channel(SESSION_PIECES);
        tokio::spawn(async move {
            let (verb, rest) = script.split_once(' ').unwrap_or((&script, ""));
            let say = |text: String| Output::Stdout(Bytes::from(text));
            let exit = match verb {
                "exit" => Exit::Code(rest.parse().unwrap()),
                "kill" => Exit::Signal(rest.to_owned()),
                "err" => {
                    let _ = to_client.send(Output::Stderr(Bytes::from(rest.to_owned()))).await;
                    Exit::Code(0)
                }
                "size" => {
                    let _ = to_client.send(say(format!("{terminal:?}\n"))).await;
                    Exit::Code(0)
                }
                _ => {
                    let is_deaf = verb == "deaf";
                    loop {
                        let said = tokio::select! {
                            Some(control) = controls.recv() => match control {
                                Control::Resize(size) => say(format!("{size:?}\n")),
                                Control::Signal(name) => say(format!("signal {name}\n")),
                            },
                            input = from_client.recv(), if !is_deaf => match input {
                                Some(Input::Bytes(bytes)) => Output::Stdout(bytes),
                                Some(Input::Eof) | None => break,
                            },
                            else => return,
                        };
                        if to_client.send(said).await.is_err() {
                            return;
                        }
                    }
                    Exit::Code(0)
                }
            };
            let _ = to_client.send(Output::Exit(exit)).await;
        });
        Ok(Running { input, control, output })
    }
}
