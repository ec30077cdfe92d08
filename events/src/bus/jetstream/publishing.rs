//! Publishing in order, whatever fails.
//!
//! Messages that are merely sent one after the other do not keep their order: one of them fails, the next is stored,
//! and the failed one comes again behind it. So a long run of messages for one stream goes as one atomic batch (NATS
//! ADR-50), pipelined and stored as a whole or not at all. A short one, and what a batch cannot carry, a message that
//! the stream has already above all, goes one by one, each after the acknowledgement of the one before.
//!
//! `Nats-Expected-Last-Msg-Id` would chain pipelined messages too, but a mismatch ends a replicated stream (nats-server
//! 2.15.1: "critical write error: last msgid mismatch").

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, Message as Reply};
use serde_json::Value;
use tokio::time::timeout;

use super::connection::{ANSWER_WAIT, Connection, Failure, api_error};
use super::wire;
use crate::bus::BusError;
use crate::message::Message;

/// Messages in one batch; servers take up to 1000.
pub(super) const MAX_BATCH_MESSAGES: usize = 512;

/// The server flushes a batch to its disk, which takes about as long as so many acknowledgements.
const MIN_BATCH_MESSAGES: usize = 32;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
/// What the headers of a batch add to each message, at most.
const BATCH_HEADERS_BYTES: usize = 200;

/// A message, ready to be sent.
#[derive(Debug)]
pub(super) struct Outbound<'a> {
    message: &'a Message,
    headers: HeaderMap,
}

/// What became of a batch.
enum Batched {
    /// All of it is stored; the place of the last.
    Stored(u64),
    /// None of it is; one of the messages is why, or the server.
    Rejected,
}

impl<'a> Outbound<'a> {
    /// # Errors
    /// No server would take it.
    pub fn new(message: &'a Message, max_bytes: usize) -> Result<Self, BusError> {
        let headers = wire::headers(message)?;
        let bytes = wire::headers_bytes(&headers) + message.payload.len() + BATCH_HEADERS_BYTES;
        if bytes > max_bytes {
            let Message { event_id, subject, .. } = message;
            let reason = format!("event {event_id} on {subject} has {bytes} bytes; NATS takes {max_bytes}");
            return Err(BusError::Refused(reason));
        }
        Ok(Self { message, headers })
    }
}

/// Publishes a run of messages of `stream`; the places of those that it has are added to `seqs`, also when it fails.
pub(super) async fn publish(
    connection: &Connection,
    stream: &str,
    is_batching: bool,
    run: Vec<Outbound<'_>>,
    seqs: &mut Vec<u64>,
) -> Result<(), Failure> {
    let messages: Vec<_> = run.iter().map(|outbound| outbound.message).collect();
    if is_batching && run.len() >= MIN_BATCH_MESSAGES {
        let count = run.len() as u64;
        if let Batched::Stored(last) = batch(connection, stream, run).await? {
            seqs.extend(last + 1 - count..=last);
            return Ok(());
        }
    }
    for message in messages {
        let (headers, payload) = (wire::headers(message)?, message.payload.clone());
        let reply = connection.request(&message.subject, headers, payload, ANSWER_WAIT).await?;
        let ack = acknowledgement(&reply)?.map_err(|error| api_error(&error))?;
        // A subject that two streams share would be counted where it is not.
        match (ack["stream"].as_str(), ack["seq"].as_u64()) {
            (Some(name), Some(seq)) if name == stream => seqs.push(seq),
            _ => return Err(BusError::Refused(format!("{} is not kept by {stream}: {ack}", message.subject)).into()),
        }
    }
    Ok(())
}

async fn batch(connection: &Connection, stream: &str, run: Vec<Outbound<'_>>) -> Result<Batched, Failure> {
    connection.ready().await?;
    let count = run.len();
    let subjects: Vec<_> = run.iter().map(|outbound| outbound.message.subject.as_str()).collect();
    let trouble = connection.trouble(&subjects);
    let sent = tokio::select! {
        sent = timeout(ANSWER_WAIT, send(connection, run)) => sent.map_err(|_| Failure::TimedOut(ANSWER_WAIT))?,
        error = trouble => Err(error.into()),
    };
    let reply = match sent {
        Ok(reply) => reply,
        // Which of them is denied shows when they go one by one.
        Err(Failure::Bus(BusError::Refused(_))) => return Ok(Batched::Rejected),
        Err(failure) => return Err(failure),
    };
    match acknowledgement(&reply)? {
        Ok(ack) if ack["stream"] == stream && ack["count"] == count => {
            let last = ack["seq"].as_u64().filter(|last| *last >= count as u64);
            Ok(last.map_or(Batched::Rejected, Batched::Stored))
        }
        Ok(_) => Ok(Batched::Rejected),
        Err(error) if error.code() >= 500 => Err(api_error(&error).into()),
        Err(error) => {
            tracing::debug!(%error, messages = count, "a batch goes one by one");
            Ok(Batched::Rejected)
        }
    }
}

/// Sends all and waits for the answer to the last.
async fn send(connection: &Connection, run: Vec<Outbound<'_>>) -> Result<Reply, Failure> {
    let (client, count) = (connection.client(), run.len());
    let inbox = client.new_inbox();
    // Unique among all clients, as an inbox has to be.
    let id = inbox.rsplit('.').next().unwrap_or(&inbox);
    for (Outbound { message, mut headers }, place) in run.into_iter().zip(1..) {
        headers.insert(BATCH_ID, id);
        headers.insert(BATCH_SEQUENCE, place.to_string());
        if place == count {
            headers.insert(BATCH_COMMIT, "1");
            return connection.request(&message.subject, headers, message.payload.clone(), ANSWER_WAIT).await;
        }
        let sent = client.publish_with_headers(message.subject.clone(), headers, message.payload.clone()).await;
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::Send => BusError::Unavailable(format!("NATS: {error}")),
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                BusError::Refused(error.to_string())
            }
        })?;
    }
    Err(BusError::Refused("an empty batch".to_owned()).into())
}

fn acknowledgement(reply: &Reply) -> Result<Result<Value, async_nats::jetstream::Error>, Failure> {
    match serde_json::from_slice(&reply.payload) {
        Ok(Response::Ok(ack)) => Ok(Ok(ack)),
        Ok(Response::Err { error }) => Ok(Err(error)),
        Err(error) => Err(BusError::Refused(format!("an acknowledgement that is none: {error}")).into()),
    }
}
