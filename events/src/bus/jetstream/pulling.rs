//! Getting messages from consumers, durable or passing, by requests that end by themselves.

use std::time::Duration;

use async_nats::{Message as Delivered, StatusCode};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::connection::{ANSWER_WAIT, Connection, Failure};
use super::wire::{self, Ticket};
use crate::bus::{BusError, MAX_ACK_PENDING};
use crate::message::Message;

/// A server forgets a reader that nobody asks for so long.
const READER_IDLE: Duration = Duration::from_secs(30);
/// The shortest time that a request is open on the server; 0 would mean for ever.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// At most `most` messages for a consumer; waits up to `wait` for the first of them, and for no more once it has one.
///
/// The request is over on the server when this returns, so that nothing is delivered to nobody. If the call is dropped
/// or the connection breaks, the server finds nobody interested.
pub(super) async fn fetch(
    connection: &Connection,
    stream: &str,
    consumer: &str,
    most: usize,
    wait: Duration,
) -> Result<Vec<Delivered>, Failure> {
    connection.ready().await?;
    if most == 0 {
        return Ok(Vec::new());
    }
    let (client, most, wait) = (connection.client(), most.min(MAX_ACK_PENDING), wait.max(SHORTEST_WAIT));
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
    let inbox = client.new_inbox();
    let subjects = [subject.as_str(), inbox.as_str()];
    let trouble = connection.trouble(&subjects);
    // With both, the server waits for one message, sends what there is, and says when that is all.
    let request = json!({"batch": most, "expires": wait.as_nanos() as u64, "no_wait": true});
    let mut messages = Vec::new();
    let fetched = async {
        let closed = |error: &dyn std::fmt::Display| BusError::Unavailable(format!("NATS: {error}"));
        let mut replies = client.subscribe(inbox.clone()).await.map_err(|error| closed(&error))?;
        let sent = client.publish_with_reply(subject.clone(), inbox.clone(), request.to_string().into()).await;
        sent.map_err(|error| closed(&error))?;
        while messages.len() < most {
            let reply = replies.next().await.ok_or_else(|| closed(&"the client is closed"))?;
            match reply.status {
                _ if wire::is_message(&reply) => messages.push(reply),
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => return Ok(()),
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(Failure::Absent(format!("there is no consumer {consumer} of stream {stream}")));
                }
                status => return Err(ended(status, reply.description.as_deref().unwrap_or_default())),
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = fetched => outcome,
        error = trouble => Err(error.into()),
        () = sleep(wait + ANSWER_WAIT) => Err(Failure::TimedOut(wait + ANSWER_WAIT)),
    };
    // What has come counts, whatever came after it.
    if messages.is_empty() { outcome.map(|()| messages) } else { Ok(messages) }
}

/// The server ended a request for a reason of its own.
fn ended(status: Option<StatusCode>, description: &str) -> Failure {
    if description.to_ascii_lowercase().contains("deleted") {
        return Failure::Absent(description.to_owned());
    }
    let code = status.map_or(0, |status| status.as_u16());
    BusError::Unavailable(format!("NATS ended the request: {code} {description}")).into()
}

/// A consumer of its own that acknowledges nothing and that the server forgets.
#[derive(Debug)]
struct Reader<'a> {
    connection: &'a Connection,
    stream: &'a str,
    name: String,
    /// Messages that matched when it was made.
    pending: u64,
}

impl<'a> Reader<'a> {
    async fn open(connection: &'a Connection, stream: &'a str, seq: u64, filters: &[&str]) -> Result<Self, Failure> {
        let config = json!({
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": seq.max(1),
            "filter_subjects": filters,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": READER_IDLE.as_nanos() as u64,
        });
        let request = json!({"stream_name": stream, "config": config});
        let info = connection.api(&format!("CONSUMER.CREATE.{stream}"), &request).await?;
        match (info["name"].as_str(), info["num_pending"].as_u64()) {
            (Some(name), pending) => {
                Ok(Self { connection, stream, name: name.to_owned(), pending: pending.unwrap_or_default() })
            }
            _ => Err(BusError::Unavailable(format!("NATS made a consumer without a name on {stream}")).into()),
        }
    }

    /// Adds up to `most` messages to `found`, without a gap between them; false at the end.
    async fn next(&self, most: usize, found: &mut Vec<(u64, Message)>) -> Result<bool, Failure> {
        let batch = fetch(self.connection, self.stream, &self.name, most, ANSWER_WAIT).await?;
        let is_more = !batch.is_empty();
        for delivered in batch {
            let reply = delivered.reply.as_deref().unwrap_or_default().to_owned();
            let expected = found.len() as u64 + 1;
            match Ticket::parse(&reply) {
                Some(ticket) if ticket.consumer_seq == expected => {
                    found.push((ticket.seq, wire::message(delivered, &ticket)));
                }
                // One was lost with a connection: the caller asks again from there.
                _ => return Ok(false),
            }
        }
        Ok(is_more)
    }

    /// Only saves the server the wait until it forgets the reader, so a failure means nothing.
    async fn close(self) {
        let _ = self.connection.api(&format!("CONSUMER.DELETE.{}.{}", self.stream, self.name), &Value::Null).await;
    }
}

/// See [`crate::bus::Bus::read`].
pub(super) async fn read(
    connection: &Connection,
    stream: &str,
    seq: u64,
    filters: &[&str],
    most: usize,
) -> Result<Vec<(u64, Message)>, Failure> {
    let mut found = Vec::new();
    if filters.is_empty() || most == 0 {
        return Ok(found);
    }
    let reader = Reader::open(connection, stream, seq, filters).await?;
    let wanted = most.min(usize::try_from(reader.pending).unwrap_or(usize::MAX));
    let mut outcome = Ok(true);
    while found.len() < wanted && matches!(outcome, Ok(true)) {
        outcome = reader.next(wanted - found.len(), &mut found).await;
    }
    reader.close().await;
    if found.is_empty() { outcome.map(|_| found) } else { Ok(found) }
}

/// See [`crate::bus::Bus::arrival`].
pub(super) async fn arrival(connection: &Connection, stream: &str, seq: u64, wait: Duration) -> Result<(), Failure> {
    let reader = Reader::open(connection, stream, seq.saturating_add(1), &[]).await?;
    let arrived = match reader.pending {
        0 => fetch(connection, stream, &reader.name, 1, wait).await.map(drop),
        _ => Ok(()),
    };
    reader.close().await;
    arrived
}
