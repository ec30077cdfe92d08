//! A session in a container, carried to another process over a WebSocket.
//!
//! Whoever wants it says what is to be run, and is told that it runs; then both sides say pieces. At most
//! [`SESSION_PIECES`] of one side are under way, since each is answered once whoever it is for has taken it. So neither
//! side ever stops reading: that the other is gone is noticed at once, and output that nobody reads does not hold up
//! input. Sizes and signals wait for no input that nobody reads: they have no answer, and what there is no room for is
//! lost.

mod frame;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::compute::platform::{Control, Exec, Input, PlatformError, SESSION_CONTROLS, SESSION_PIECES, Session};

pub use self::frame::{Frame, MAX_FRAME_BYTES, Word};

/// Between two signs of life of a side.
const LIFE_EVERY: Duration = Duration::from_secs(15);
/// A side that gave none for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a side that has said its last waits for the other to have read it.
const LINGER: Duration = Duration::from_secs(5);
/// How long the first word may take; a container's first process takes its time to start a program.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A WebSocket's message: a frame, or nothing but a sign of life.
pub type Beat = Option<Bytes>;

/// A WebSocket as this module uses it; a message that is neither beat nor ping ends it with an error.
pub trait Socket: Stream<Item = Result<Beat, Self::Broken>> + Sink<Beat, Error = Self::Broken> + Send + Unpin {
    type Broken: std::error::Error + Send;
}

impl<S, E> Socket for S
where
    S: Stream<Item = Result<Beat, E>> + Sink<Beat, Error = E> + Send + Unpin,
    E: std::error::Error + Send,
{
    type Broken = E;
}

/// Asks for a session over `socket`.
///
/// # Errors
/// What the platform says; [`PlatformError::Unavailable`] if the socket breaks before.
pub async fn ask(mut socket: impl Socket + 'static, exec: Exec) -> Result<Session, PlatformError> {
    let lost = |why: String| PlatformError::Unavailable(format!("the session was lost before it began: {why}"));
    let began = tokio::time::timeout(BEGIN_TIMEOUT, async {
        let asked = socket.send(Some(Frame::Word(Word::Run(exec)).encode())).await;
        asked.map_err(|error| lost(error.to_string()))?;
        match first(&mut socket).await {
            Some(Frame::Word(Word::Started)) => Ok(()),
            Some(Frame::Word(Word::Refused(error))) => Err(error),
            _ => Err(lost("it ended".to_owned())),
        }
    });
    began.await.map_err(|_| lost(format!("no answer within {} s", BEGIN_TIMEOUT.as_secs())))??;
    let (input, inputs) = mpsc::channel(SESSION_PIECES);
    let (control, controls) = mpsc::channel(SESSION_CONTROLS);
    let (outputs, output) = mpsc::channel(SESSION_PIECES);
    tokio::spawn(async move {
        let user_is_gone = outputs.clone();
        tokio::select! {
            () = carry(Side::Asking(controls), socket, (inputs, Frame::Input), (outputs, Frame::into_output)) => {}
            () = user_is_gone.closed() => {}
        }
    });
    Ok(Session { input, control, output })
}

/// What is to be run, as the other side asked.
pub async fn asked(socket: &mut impl Socket) -> Option<Exec> {
    match tokio::time::timeout(BEGIN_TIMEOUT, first(socket)).await {
        Ok(Some(Frame::Word(Word::Run(exec)))) => Some(exec),
        _ => None,
    }
}

/// Answers who asked, and carries the session until it has ended, or nobody wants it any more.
pub async fn answer(mut socket: impl Socket, session: Result<Session, PlatformError>) {
    let (word, session) = match session {
        Ok(session) => (Word::Started, Some(session)),
        Err(error) => (Word::Refused(error), None),
    };
    let told = socket.send(Some(Frame::Word(word).encode())).await;
    let (Ok(()), Some(Session { input, control, output })) = (told, session) else { return };
    carry(Side::Answering(control), socket, (output, Frame::Output), (input, Frame::into_input)).await;
}

async fn first(socket: &mut impl Socket) -> Option<Frame> {
    loop {
        match socket.next().await? {
            Ok(Some(bytes)) => return Frame::decode(bytes),
            Ok(None) => {}
            Err(_) => return None,
        }
    }
}

/// What a piece is on its way.
type Encode<O> = fn(O) -> Frame;
/// What a frame is for this side, if it is for this side.
type Decode<I> = fn(Frame) -> Option<I>;

/// Which end of the socket this is, and where sizes and signals come from or go.
enum Side {
    Asking(mpsc::Receiver<Control>),
    Answering(mpsc::Sender<Control>),
}

/// Carries pieces both ways, until the program has ended and all that it wrote is where it belongs, or until whoever
/// wanted the session is gone.
async fn carry<O, I>(
    side: Side,
    socket: impl Socket,
    (said, encode): (mpsc::Receiver<O>, Encode<O>),
    (heard, decode): (mpsc::Sender<I>, Decode<I>),
) {
    let (to, from) = socket.split();
    let (is_asking, said_controls, heard_controls) = match side {
        Side::Asking(said) => (true, said, None),
        // Nobody has the other end: there are none to say.
        Side::Answering(heard) => (false, mpsc::channel(1).1, Some(heard)),
    };
    let credit = Semaphore::new(SESSION_PIECES);
    let (queue, queued) = mpsc::channel(SESSION_PIECES);
    let (taken, answers) = mpsc::channel(SESSION_PIECES);
    let speaking = speak(is_asking, to, (said, encode), (answers, said_controls), &credit);
    let hearing = async {
        let mut delivering = pin!(deliver(queued, heard, decode, taken));
        tokio::select! {
            () = listen(from, queue, heard_controls, &credit) => {}
            () = &mut delivering => return,
        }
        // Nobody wants what runs any more; but what a program wrote last is still wanted.
        if is_asking {
            delivering.await;
        }
    };
    let mut hearing = pin!(hearing);
    tokio::select! {
        () = speaking => if is_asking {
            hearing.await;
        } else {
            // Closed at once, what is still on its way could be lost.
            drop(tokio::time::timeout(LINGER, hearing).await);
        },
        () = &mut hearing => {}
    }
}

/// Says what there is to say, as far as the other side has room, and what it is to know of its own pieces. Returns
/// after the last, or when nobody is there.
async fn speak<O>(
    is_asking: bool,
    mut to: impl Sink<Beat> + Unpin,
    (mut said, encode): (mpsc::Receiver<O>, Encode<O>),
    (mut answers, mut controls): (mpsc::Receiver<()>, mpsc::Receiver<Control>),
    credit: &Semaphore,
) {
    let mut life = tokio::time::interval(LIFE_EVERY);
    life.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_open = true;
    loop {
        let piece = async {
            // There must be room before a piece leaves its channel, but none is spent before there is a piece.
            drop(credit.acquire().await);
            let piece = said.recv().await;
            if let Ok(permit) = credit.try_acquire() {
                permit.forget();
            }
            piece.map(encode)
        };
        let frame = tokio::select! {
            Some(()) = answers.recv() => Some(Frame::Taken),
            Some(control) = controls.recv() => Some(Frame::Control(control)),
            piece = piece, if is_open => match piece {
                Some(frame) => Some(frame),
                None if is_asking => {
                    is_open = false;
                    Some(Frame::Input(Input::Eof))
                }
                // The platform lost sight of it.
                None => return,
            },
            _ = life.tick() => None,
        };
        // What was said before a piece is not behind it.
        while let Ok(control) = controls.try_recv() {
            if to.send(Some(Frame::Control(control).encode())).await.is_err() {
                return;
            }
        }
        let is_last = frame.as_ref().is_some_and(Frame::is_last);
        if to.send(frame.map(|frame| frame.encode())).await.is_err() || is_last {
            return;
        }
    }
}

/// Takes what the other side says, which is never more than there is room for.
async fn listen<E>(
    mut from: impl Stream<Item = Result<Beat, E>> + Unpin,
    queue: mpsc::Sender<Frame>,
    controls: Option<mpsc::Sender<Control>>,
    credit: &Semaphore,
) {
    while let Ok(Some(Ok(beat))) = tokio::time::timeout(SILENCE, from.next()).await {
        match (beat.map(Frame::decode), &controls) {
            (None, _) => {}
            // A program that takes nothing at all misses it.
            (Some(Some(Frame::Control(control))), Some(controls)) => drop(controls.try_send(control)),
            (Some(Some(Frame::Taken)), _) if credit.available_permits() < SESSION_PIECES => credit.add_permits(1),
            (Some(Some(frame @ (Frame::Input(_) | Frame::Output(_)))), _) if queue.try_send(frame.clone()).is_ok() => {}
            // Not our edd.
            (Some(_), _) => return,
        }
    }
}

/// Hands over what was heard, and has it answered.
async fn deliver<I>(
    mut queued: mpsc::Receiver<Frame>,
    heard: mpsc::Sender<I>,
    decode: Decode<I>,
    taken: mpsc::Sender<()>,
) {
    while let Some(frame) = queued.recv().await {
        let is_last = frame.is_last();
        let Some(piece) = decode(frame) else { return };
        // A program that takes no input may still write, and nobody asks for an answer to the last.
        let _ = heard.send(piece).await;
        let _ = taken.send(()).await;
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
