//! The other side's network is gone: it says nothing more, and nobody is told.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::*;

/// Says its one frame, if it has one, and then nothing; takes everything.
struct Gone(Option<Bytes>);

impl Stream for Gone {
    type Item = Result<Beat, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.take().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(Some(frame)))))
    }
}

impl Sink<Beat> for Gone {
    type Error = Infallible;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, _: Beat) -> Result<(), Infallible> {
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_silent_is_given_up_on_by_the_other() {
    let began = Instant::now();
    let session = ask(Gone(Some(Frame::Word(Word::Started).encode())), Exec::default()).await;
    let Session { input: _input, control: _control, mut output } = session.expect("a session");
    assert_eq!(output.recv().await, None, "sight of the program is lost");
    assert_eq!(began.elapsed(), SILENCE);

    let began = Instant::now();
    let (input, mut inputs) = mpsc::channel(1);
    let (control, _controls) = mpsc::channel(1);
    // A program that runs on, and says nothing.
    let (_running, output) = mpsc::channel(1);
    answer(Gone(None), Ok(Session { input, control, output })).await;
    assert_eq!((began.elapsed(), inputs.recv().await), (SILENCE, None));
}
