//! `edd events`: the audit trail of a service, read from its database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use edd_events::database::Database;
use edd_events::event_log::{self, Entry, Filter, Status, Tail};
use edd_events::message::Message;
use edd_proto::{AnyEvent, Encoding};
use serde_json::{Value, json};

use crate::admin_client::block_on;
use crate::cli::{EventFilterArgs, EventsCommand, ServiceArgs};
use crate::databases::{ServiceName, away};

use crate::exit::{Code, Failure, Outcome};
use crate::replay;
use crate::routes::print_table;

/// Between two looks of `tail`.
const POLL: Duration = Duration::from_millis(500);
/// Rows of one event: that of its service, and one of each consumer.
const MAX_ROWS: usize = 100;
/// Bytes of a payload that is no event, shown in hexadecimal.
const MAX_HEX_BYTES: usize = 1024;

/// How far an event is, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventStatus {
    /// Committed; the bus has not taken it yet.
    Pending,
    /// The bus has taken it.
    Published,
    /// A consumer of the service has handled it.
    Completed,
    /// A consumer of the service gave up on it.
    Failed,
}

impl From<EventStatus> for Status {
    fn from(status: EventStatus) -> Self {
        match status {
            EventStatus::Pending => Self::Pending,
            EventStatus::Published => Self::Published,
            EventStatus::Completed => Self::Completed,
            EventStatus::Failed => Self::Failed,
        }
    }
}

pub fn run(command: EventsCommand) -> Outcome {
    block_on(async {
        match command {
            EventsCommand::List { filter, limit, service, json } => list(filter.into(), limit, &service, json).await,
            EventsCommand::Tail { filter, limit, service, json } => tail(filter.into(), limit, &service, json).await,
            EventsCommand::Replay { projection, from, service, plane, owner, json } => {
                replay::run(&projection, from, &service, &plane, &owner, json).await
            }
            EventsCommand::Show { id, service, json } => show(id, &service, json).await,
        }
    })
}

impl From<EventFilterArgs> for Filter {
    fn from(args: EventFilterArgs) -> Self {
        Self {
            entity: args.entity,
            correlation_id: args.correlation,
            subject: args.subject,
            since: args.since.map(micros),
            status: args.status.map(Status::from),
            ..Self::default()
        }
    }
}

async fn attach(args: &ServiceArgs) -> Result<Database, Failure> {
    args.databases.only(args.service)?.attach(args.service).await
}

async fn list(filter: Filter, limit: u32, args: &ServiceArgs, as_json: bool) -> Outcome {
    let database = attach(args).await?;
    let entries = event_log::newest(&database, &filter, None, limit as usize).await.map_err(away(args.service))?;
    if as_json {
        let events: Vec<Value> = entries.iter().map(summary).collect();
        println!("{}", json!({ "service": args.service.to_string(), "events": events }));
        return Ok(Code::Ok);
    }
    let cells: Vec<[String; 6]> = entries.into_iter().map(cells).collect();
    let rows: Vec<[&str; 6]> = cells.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["TIME", "STATUS", "SUBJECT", "VERSION", "HANDLED BY", "EVENT ID"], &rows);
    Ok(Code::Ok)
}

fn cells(entry: Entry) -> [String; 6] {
    let Message { event_id, subject, version, .. } = entry.message;
    let by = entry.processed_by.unwrap_or_default();
    [moment(entry.at), entry.status.name().to_owned(), subject, version.to_string(), by, event_id]
}

async fn tail(filter: Filter, limit: Option<u32>, args: &ServiceArgs, as_json: bool) -> Outcome {
    let away = away(args.service);
    let database = attach(args).await?;
    let mut tail = Tail::start(&database, filter).await.map_err(&away)?;
    if !as_json {
        eprintln!("following the events of {}; Ctrl-C ends it", args.service);
    }
    let mut left = limit.unwrap_or(u32::MAX);
    loop {
        let entries = tail.next(&database).await.map_err(&away)?;
        if entries.is_empty() {
            tokio::time::sleep(POLL).await;
        }
        for entry in entries {
            if as_json {
                println!("{}", summary(&entry));
            } else {
                let [at, status, subject, version, by, event_id] = cells(entry);
                println!("{}", format!("{at}  {status:<9}  {subject}  v{version}  {event_id}  {by}").trim_end());
            }
            // Without a limit it ends when the trail has more than four thousand million rows.
            left -= 1;
            if left == 0 {
                return Ok(Code::Ok);
            }
        }
    }
}

async fn show(id: String, args: &ServiceArgs, as_json: bool) -> Outcome {
    let database = attach(args).await?;
    let filter = Filter { event_id: Some(id.clone()), ..Filter::default() };
    let entries = event_log::after(&database, &filter, 0, MAX_ROWS).await.map_err(away(args.service))?;
    let Some(first) = entries.first() else { return Err(unknown(&id, args.service)) };
    if as_json {
        let event = described(&first.message);
        let trail: Vec<Value> = entries.iter().map(step).collect();
        println!("{}", json!({ "service": args.service.to_string(), "event": event, "trail": trail }));
        return Ok(Code::Ok);
    }
    print_message(&first.message);
    for entry in &entries {
        let what = match &entry.processed_by {
            Some(consumer) => format!("{} by {consumer}", entry.status.name()),
            None => entry.status.name().to_owned(),
        };
        let error = entry.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        println!("{:<12} {}{error}", what, moment(entry.processed_at.unwrap_or(entry.at)));
    }
    print_payload(&first.message);
    Ok(Code::Ok)
}

fn unknown(id: &str, service: ServiceName) -> Failure {
    Failure::new(
        Code::Failure,
        format!("{service} knows no event {id}\nhint: another service may, see --service; the trail goes back 90 days"),
    )
}

/// One row of the trail without the content.
fn summary(entry: &Entry) -> Value {
    let mut event = identity(&entry.message);
    for (name, value) in step(entry).as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    event
}

fn step(entry: &Entry) -> Value {
    json!({
        "status": entry.status.name(),
        "at": moment(entry.at),
        "processed_by": entry.processed_by,
        "processed_at": entry.processed_at.map(moment),
        "error": entry.error,
    })
}

fn identity(message: &Message) -> Value {
    json!({
        "event_id": message.event_id,
        "subject": message.subject,
        "entity": message.entity,
        "version": message.version,
        "correlation_id": message.correlation_id,
    })
}

/// An event with its content.
pub fn described(message: &Message) -> Value {
    let mut event = identity(message);
    event["content_type"] = json!(message.content_type);
    match payload(message) {
        Ok(payload) => event["payload"] = payload,
        Err((error, bytes)) => {
            event["payload"] = Value::Null;
            event["payload_error"] = json!(error);
            event["payload_hex"] = json!(bytes);
        }
    }
    event
}

/// The event in an encoding that people read; or what is wrong with it, and its first bytes.
fn payload(message: &Message) -> Result<Value, (String, String)> {
    let decoded = || -> Result<Value, String> {
        let encoding = Encoding::from_content_type(Some(&message.content_type)).map_err(|error| error.to_string())?;
        let event = AnyEvent::decode(&message.subject, encoding, &message.payload).map_err(|error| chain(&error))?;
        let bytes = event.encode(Encoding::Json).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    decoded().map_err(|error| {
        let start = &message.payload[..message.payload.len().min(MAX_HEX_BYTES)];
        (error, start.iter().map(|byte| format!("{byte:02x}")).collect())
    })
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub fn print_message(message: &Message) {
    println!("event        {}", message.event_id);
    println!("subject      {}", message.subject);
    println!("entity       {}, version {}", message.entity, message.version);
    println!("correlation  {}", if message.correlation_id.is_empty() { "none" } else { &message.correlation_id });
}

pub fn print_payload(message: &Message) {
    match payload(message) {
        Ok(payload) => println!("{payload:#}"),
        Err((error, bytes)) => println!("its content cannot be read: {error}\n{bytes}"),
    }
}

/// A time as RFC 3339 has it, in UTC.
pub fn moment(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    // The year 9999 is the last that it can write.
    let last = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since.min(last)).to_string()
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time, or how long ago it was.
pub fn parse_moment(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(|| format!("`{text}` ago is before all time"));
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| format!("`{text}` is no time such as 2026-01-31T12:00:00Z, nor a duration such as 15m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let noon = parse_moment("2026-01-31T12:00:00Z").expect("a time");
        assert_eq!(moment(micros(noon)), "2026-01-31T12:00:00.000Z");
        assert_eq!(moment(-5), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(i64::MAX), "9999-12-31T23:59:59.000Z");
        let quarter = Duration::from_secs(900);
        let (before, ago, after) = (SystemTime::now(), parse_moment("15m").expect("a time"), SystemTime::now());
        assert!((before - quarter..=after - quarter).contains(&ago), "{ago:?}");
        for bad in ["yesterday", "", "12", "999999999999999999y"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }
}
