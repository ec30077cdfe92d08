//! Questions with an answer, on plain NATS: no stream keeps them, and one of all that serve a subject answers.

use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::connection::{Connection, Failure};
use crate::bus::{BusError, Question};

/// Questions that wait for the service that answers them, and as many that it works on.
const MAX_QUESTIONS: usize = 256;
/// Nobody waits longer for an answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);
/// All processes of one service share their questions.
const QUEUE: &str = "edd";

/// See [`crate::bus::Bus::ask`].
pub(super) async fn ask(
    connection: &Connection,
    subject: &str,
    question: Bytes,
    wait: Duration,
) -> Result<Bytes, BusError> {
    match connection.request(subject, HeaderMap::new(), question, wait).await {
        Ok(answer) => Ok(answer.payload),
        Err(Failure::Absent(_) | Failure::TimedOut(_)) => Err(BusError::NoAnswer(wait)),
        Err(Failure::Bus(error)) => Err(error),
    }
}

/// See [`crate::bus::Bus::serve`].
pub(super) async fn serve(
    connection: &Connection,
    subject: &'static str,
) -> Result<mpsc::Receiver<Question>, BusError> {
    connection.ready().await?;
    let subjects = [subject];
    let trouble = connection.trouble(&subjects);
    let subscribed = async {
        let asked = connection.client().queue_subscribe(subject, QUEUE.to_owned()).await;
        let asked = asked.map_err(|error| BusError::Refused(format!("serve {subject}: {error}")))?;
        connection.settle().await.map(|()| asked)
    };
    let asked = tokio::select! {
        biased;
        error = trouble => return Err(error),
        asked = subscribed => asked?,
    };
    let (questions, receiver) = mpsc::channel(MAX_QUESTIONS);
    let connection = connection.clone();
    tokio::spawn(async move {
        let dropped = questions.clone();
        let asked = asked.take_until(dropped.closed());
        asked.for_each_concurrent(MAX_QUESTIONS, |message| answer(&connection, &questions, message)).await;
    });
    Ok(receiver)
}

/// Has one question answered. One that is dropped, or takes too long, is answered by nobody.
async fn answer(connection: &Connection, questions: &mpsc::Sender<Question>, message: Message) {
    let Some(inbox) = message.reply else { return };
    let (reply, answer) = oneshot::channel();
    let answered = async {
        questions.send(Question { payload: message.payload, reply }).await.ok()?;
        answer.await.ok()
    };
    let Ok(Some(answer)) = timeout(LONGEST_ANSWER, answered).await else { return };
    if let Err(error) = connection.client().publish(inbox, answer).await {
        tracing::warn!(subject = %message.subject, %error, "an answer is lost");
    }
}
