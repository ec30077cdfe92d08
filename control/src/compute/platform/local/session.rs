//! Sessions as edd sees them: the other end of [`super::sessions`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::wire::{self, Frame, Kind};
use crate::compute::platform::{Exec, Input, MAX_PIECE_BYTES, Output, PlatformError, SESSION_PIECES, Session};

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
    let (from, to) = stream.into_split();
    let (input, inputs) = mpsc::channel(SESSION_PIECES);
    let (outputs, output) = mpsc::channel(SESSION_PIECES);
    // As many pieces of input as may be under way.
    let credit = Arc::new(Semaphore::new(SESSION_PIECES));
    let user_is_gone = outputs.clone();
    tokio::spawn(async move {
        let sending = async {
            send(inputs, to, &credit).await;
            std::future::pending::<()>().await;
        };
        // Whichever ends first drops both halves, which the container takes as a closed terminal.
        tokio::select! {
            () = receive(from, outputs, &credit) => {}
            () = sending => {}
            () = user_is_gone.closed() => {}
        }
    });
    Session { input, output }
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

async fn send(mut from: mpsc::Receiver<Input>, mut to: OwnedWriteHalf, credit: &Semaphore) {
    while let Some(input) = from.recv().await {
        let sent = match input {
            Input::Bytes(bytes) => send_bytes(bytes, &mut to, credit).await,
            Input::Eof => Frame::new(Kind::EndOfInput, Bytes::new()).write(&mut to).await,
            Input::Resize(size) => match Frame::json(Kind::Resize, &size) {
                Ok(frame) => frame.write(&mut to).await,
                Err(error) => Err(error),
            },
            Input::Signal(name) => Frame::new(Kind::Signal, name).write(&mut to).await,
        };
        if sent.is_err() {
            return;
        }
    }
    // The program may have ended already.
    let _ = Frame::new(Kind::EndOfInput, Bytes::new()).write(&mut to).await;
    // Closed now, it would say that the user is gone.
    std::future::pending::<()>().await;
}

async fn send_bytes(mut bytes: Bytes, to: &mut OwnedWriteHalf, credit: &Semaphore) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(MAX_PIECE_BYTES));
        // It comes back with the container's word that the piece was taken.
        credit.acquire().await.map_err(std::io::Error::other)?.forget();
        Frame::new(Kind::Stdin, piece).write(to).await?;
    }
    Ok(())
}
