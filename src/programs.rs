//! Programs in containers, as the gateway has them run for who comes by SSH: by the compute service of this process, or
//! over its API.

use async_trait::async_trait;
use edd_control::compute::platform::{self, Exec, PlatformError, Session};
use edd_control::compute::service::Service;
use edd_gateway::ssh::exec::{ExecError, Exit, Input, Output, Program, Programs, Running, SESSION_PIECES, Size};
use edd_proto::ContainerId;
use tokio::sync::mpsc;

/// The compute service of this process.
#[derive(Debug)]
pub struct InProcess(pub Service);

#[async_trait]
impl Programs for InProcess {
    async fn start(&self, container: ContainerId, program: Program) -> Result<Running, ExecError> {
        started(self.0.session(container, exec(program)).await)
    }
}

/// In compute's words.
pub fn exec(program: Program) -> Exec {
    let Program { command, environment, terminal, user } = program;
    Exec { command, environment, terminal: terminal.map(size), user: Some(user) }
}

fn size(Size { columns, rows }: Size) -> platform::Size {
    platform::Size { columns, rows }
}

/// In the gateway's words.
pub fn started(session: Result<Session, PlatformError>) -> Result<Running, ExecError> {
    match session {
        Ok(session) => Ok(running(session)),
        Err(PlatformError::Unavailable(why)) => Err(ExecError::Unavailable(why)),
        Err(error) => Err(ExecError::Impossible(error.to_string())),
    }
}

fn running(session: Session) -> Running {
    let Session { input: to, output: mut from } = session;
    let (input, mut inputs) = mpsc::channel(SESSION_PIECES);
    let (outputs, output) = mpsc::channel(SESSION_PIECES);
    tokio::spawn(async move {
        let user_is_gone = outputs.clone();
        let telling = async {
            while let Some(piece) = inputs.recv().await {
                // One that has ended says so by its output.
                let _ = to.send(told(piece)).await;
            }
            drop(to);
            std::future::pending::<()>().await;
        };
        let hearing = async {
            while let Some(piece) = from.recv().await {
                if outputs.send(heard(piece)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = hearing => {}
            () = telling => {}
            () = user_is_gone.closed() => {}
        }
    });
    Running { input, output }
}

fn told(input: Input) -> platform::Input {
    match input {
        Input::Bytes(bytes) => platform::Input::Bytes(bytes),
        Input::Eof => platform::Input::Eof,
        Input::Resize(new) => platform::Input::Resize(size(new)),
        Input::Signal(name) => platform::Input::Signal(name),
    }
}

fn heard(output: platform::Output) -> Output {
    match output {
        platform::Output::Stdout(bytes) => Output::Stdout(bytes),
        platform::Output::Stderr(bytes) => Output::Stderr(bytes),
        platform::Output::Exit(platform::Exit::Code(code)) => Output::Exit(Exit::Code(code)),
        platform::Output::Exit(platform::Exit::Signal(name)) => Output::Exit(Exit::Signal(name)),
    }
}
