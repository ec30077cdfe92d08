//! A platform without sshd, as far as tests need one.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::ContainerId;
use tokio::sync::mpsc;

use crate::ssh::exec::{ExecError, Exit, Input, Output, Program, Programs, Running, SESSION_PIECES};

/// Runs `cat`, `exit N`, `kill NAME`, `err TEXT`, `signals` and `size`, and remembers what it was asked for.
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
                    while let Some(input) = from_client.recv().await {
                        let sent = match input {
                            Input::Bytes(bytes) => to_client.send(Output::Stdout(bytes)).await,
                            Input::Eof => break,
                            Input::Resize(size) => to_client.send(say(format!("{size:?}\n"))).await,
                            Input::Signal(name) => to_client.send(say(format!("signal {name}\n"))).await,
                        };
                        if sent.is_err() {
                            return;
                        }
                    }
                    Exit::Code(0)
                }
            };
            let _ = to_client.send(Output::Exit(exit)).await;
        });
        Ok(Running { input, output })
    }
}
