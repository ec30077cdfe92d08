//! Programs in containers, as the gateway has them run for who comes by SSH: by the compute service of this process, or
//! over its API.

use async_trait::async_trait;
use edd_control::compute::platform::{self, Exec, PlatformError, Session};
use edd_control::compute::service::Service;
use edd_gateway::ssh::exec::{
    Control, ExecError, Exit, Input, Output, Program, Programs, Running, SESSION_CONTROLS, SESSION_PIECES, Size,
};
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
    let Session { input: to, control: steer, output: mut from } = session;
    let (input, mut inputs) = mpsc::channel(SESSION_PIECES);
    let (control, mut controls) = mpsc::channel(SESSION_CONTROLS);
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
        let steering = async {
            while let Some(control) = controls.recv().await {
                let _ = steer.send(steered(control)).await;
            }
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
            () = steering => {}
            () = user_is_gone.closed() => {}
        }
    });
    Running { input, control, output }
}

fn told(input: Input) -> platform::Input {
    match input {
        Input::Bytes(bytes) => platform::Input::Bytes(bytes),
        Input::Eof => platform::Input::Eof,
    }
}

fn steered(control: Control) -> platform::Control {
    match control {
        Control::Resize(new) => platform::Control::Resize(size(new)),
        Control::Signal(name) => platform::Control::Signal(name),
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
