//! Sessions as edd sees them: the other end of [`super::sessions`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::wire::{self, Frame, Kind};
use crate::compute::platform::{
    Control, Exec, Input, MAX_PIECE_BYTES, Output, PlatformError, SESSION_CONTROLS, SESSION_PIECES, Session,
};

/// How long the container's first process may take to start a program.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Begins a session in the container whose directory is `dir`.
pub(super) async fn open(dir: &Path, exec: &Exec) -> Result<Session, PlatformError> {
    let lost = |error: std::io::Error| PlatformError::Unavailable(format!("the container takes no sessions: {error}"));
    let begin = async {
        let mut stream = wire::connect(dir)?;
        wire::say(&mut stream, exec).await?;
        let answer = Frame::read(&mut stream).await?;
        Ok((stream, answer))
    };
    let (stream, answer) = match tokio::time::timeout(START_TIMEOUT, begin).await {
        Ok(begun) => begun.map_err(lost)?,
        Err(_) => return Err(PlatformError::Unavailable("the container does not answer".to_owned())),
    };
    match answer {
        Some(frame) if frame.kind == Kind::Message => Ok(carry(stream)),
        Some(frame) if frame.kind == Kind::Refused => Err(PlatformError::Impossible(frame.text())),
        _ => Err(PlatformError::Unavailable("the container ended".to_owned())),
    }
}

fn carry(stream: UnixStream) -> Session {
    let (from, mut to) = stream.into_split();
    let (input, inputs) = mpsc::channel(SESSION_PIECES);
    let (control, controls) = mpsc::channel(SESSION_CONTROLS);
    let (outputs, output) = mpsc::channel(SESSION_PIECES);
    // As many pieces of input as may be under way.
    let credit = Arc::new(Semaphore::new(SESSION_PIECES));
    let user_is_gone = outputs.clone();
    tokio::spawn(async move {
        let sending = async {
            // Failing means that the container is gone, which the other half sees.
            let _ = send(inputs, controls, &mut to, &credit).await;
            // Closed now, it would say that the user is gone.
            std::future::pending::<()>().await;
        };
        // Whichever ends first drops both halves, which the container takes as a closed terminal.
        tokio::select! {
            () = receive(from, outputs, &credit) => {}
            () = sending => {}
            () = user_is_gone.closed() => {}
        }
    });
    Session { input, control, output }
}

async fn receive(mut from: OwnedReadHalf, to: mpsc::Sender<Output>, credit: &Semaphore) {
    while let Ok(Some(frame)) = Frame::read(&mut from).await {
        let output = match frame.kind {
            Kind::Stdout => Output::Stdout(frame.payload),
            Kind::Stderr => Output::Stderr(frame.payload),
            Kind::Taken => {
                credit.add_permits(1);
                continue;
            }
            Kind::Exit => match frame.parse() {
                Ok(exit) => Output::Exit(exit),
                Err(_) => return,
            },
            _ => return,
        };
        let is_last = matches!(output, Output::Exit(_));
        if to.send(output).await.is_err() || is_last {
            return;
        }
    }
}

/// Passes input on as it is taken, and sizes and signals at once.
async fn send(
    mut from: mpsc::Receiver<Input>,
    mut controls: mpsc::Receiver<Control>,
    to: &mut OwnedWriteHalf,
    credit: &Semaphore,
) -> std::io::Result<()> {
    let (mut bytes, mut is_open) = (Bytes::new(), true);
    loop {
        tokio::select! {
            biased;
            Some(control) = controls.recv() => match control {
                Control::Resize(size) => Frame::json(Kind::Resize, &size)?,
                Control::Signal(name) => Frame::new(Kind::Signal, name),
            },
            // It comes back with the container's word that the piece was taken.
            permit = credit.acquire(), if !bytes.is_empty() => {
                permit.map_err(std::io::Error::other)?.forget();
                Frame::new(Kind::Stdin, bytes.split_to(bytes.len().min(MAX_PIECE_BYTES)))
            }
            input = from.recv(), if is_open && bytes.is_empty() => match input {
                Some(Input::Bytes(more)) => {
                    bytes = more;
                    continue;
                }
                Some(Input::Eof) => Frame::new(Kind::EndOfInput, Bytes::new()),
                None => {
                    is_open = false;
                    Frame::new(Kind::EndOfInput, Bytes::new())
                }
            },
            // Nobody says anything any more.
            else => return Ok(()),
        }
        .write(to)
        .await?;
    }
}
