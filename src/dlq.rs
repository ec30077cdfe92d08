//! `edd dlq`: events that a consumer gave up on, in its service's database.

use clap::ValueEnum;
use edd_events::database::Database;
use edd_events::dead_letter::{self, DeadLetter, DecisionError, Filter, State};
use serde_json::{Value, json};

use crate::admin_client::block_on;
use crate::cli::{DlqArgs, DlqCommand};
use crate::databases::{ServiceName, away};
use crate::events::{described, moment, print_message, print_payload};
use crate::exit::{Code, Failure, Outcome};
use crate::routes::print_table;

/// Longest error in a list, characters.
const MAX_CELL_CHARS: usize = 60;

/// What was decided about a dead letter, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LetterState {
    /// Nothing yet.
    Dead,
    /// Its consumer is to try it again.
    Requeued,
    /// Its consumer tried again and did it.
    Handled,
    /// It is given up for good.
    Discarded,
}

impl From<LetterState> for State {
    fn from(state: LetterState) -> Self {
        match state {
            LetterState::Dead => Self::Dead,
            LetterState::Requeued => Self::Requeued,
            LetterState::Handled => Self::Handled,
            LetterState::Discarded => Self::Discarded,
        }
    }
}

pub fn run(command: DlqCommand) -> Outcome {
    block_on(async {
        match command {
            DlqCommand::List { consumer, state, limit, dlq } => list(consumer, state.into(), limit, &dlq).await,
            DlqCommand::Show { id, dlq } => show(id, &dlq).await,
            DlqCommand::Requeue { all: true, consumer: Some(consumer), dlq, .. } => requeue_all(&consumer, &dlq).await,
            DlqCommand::Requeue { id, dlq, .. } => requeue(id.unwrap_or_default(), &dlq).await,
            DlqCommand::Discard { id, dlq } => discard(id, &dlq).await,
        }
    })
}

/// The databases that are asked, opened.
async fn attach(args: &DlqArgs) -> Result<Vec<(ServiceName, Database)>, Failure> {
    let locations = match args.service {
        Some(service) => vec![(service, args.databases.only(service)?)],
        None => args.databases.all()?,
    };
    let mut databases = Vec::new();
    for (service, location) in locations {
        databases.push((service, location.attach(service).await?));
    }
    Ok(databases)
}

async fn list(consumer: Option<String>, state: State, limit: u32, args: &DlqArgs) -> Outcome {
    let mut letters = Vec::new();
    for (service, database) in attach(args).await? {
        let filter = Filter { consumer: consumer.as_deref(), stream: None };
        let found = dead_letter::list(&database, state, filter, 0, limit).await.map_err(away(service))?;
        letters.extend(found.into_iter().map(|letter| (service, letter)));
    }
    if args.json {
        let letters: Vec<Value> = letters.iter().map(|(service, letter)| summary(*service, letter)).collect();
        println!("{}", json!({ "dead_letters": letters }));
        return Ok(Code::Ok);
    }
    let cells: Vec<[String; 7]> = letters.into_iter().map(|(service, letter)| cells(service, letter)).collect();
    let rows: Vec<[&str; 7]> = cells.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["SERVICE", "ID", "DEAD SINCE", "CONSUMER", "TRIES", "SUBJECT", "ERROR"], &rows);
    Ok(Code::Ok)
}

fn cells(service: ServiceName, letter: DeadLetter) -> [String; 7] {
    let line = letter.error.lines().next().unwrap_or_default();
    let mut error: String = line.chars().take(MAX_CELL_CHARS).collect();
    if error.len() < letter.error.len() {
        error.push('…');
    }
    let (id, tries) = (letter.id.to_string(), letter.attempts.to_string());
    [service.to_string(), id, moment(letter.dead_at), letter.consumer, tries, letter.message.subject, error]
}

fn summary(service: ServiceName, letter: &DeadLetter) -> Value {
    json!({
        "service": service.to_string(),
        "id": letter.id,
        "state": letter.state.name(),
        "consumer": letter.consumer,
        "event_id": letter.message.event_id,
        "subject": letter.message.subject,
        "stream": letter.stream,
        "sequence": letter.stream_seq,
        "error": letter.error,
        "attempts": letter.attempts,
        "first_failed_at": moment(letter.first_at),
        "dead_at": moment(letter.dead_at),
    })
}

/// The one letter that `id` names among the databases that are asked.
async fn find(id: i64, args: &DlqArgs) -> Result<(ServiceName, Database, DeadLetter), Failure> {
    let mut found = Vec::new();
    for (service, database) in attach(args).await? {
        if let Some(letter) = dead_letter::find(&database, id).await.map_err(away(service))? {
            found.push((service, database, letter));
        }
    }
    let services: Vec<String> = found.iter().map(|(service, ..)| service.to_string()).collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => {
            let message =
                format!("dead letter {id} is in {}\nhint: name one with --service", services.join(" and in "));
            Err(Failure::new(Code::Failure, message))
        }
        (None, _) => {
            let message = format!("{}\nhint: `edd dlq list` names those that are", DecisionError::Unknown(id));
            Err(Failure::new(Code::Failure, message))
        }
    }
}

async fn show(id: i64, args: &DlqArgs) -> Outcome {
    let (service, _, letter) = find(id, args).await?;
    if args.json {
        let mut shown = summary(service, &letter);
        shown["event"] = described(&letter.message);
        println!("{shown}");
        return Ok(Code::Ok);
    }
    println!("dead letter  {} of {service}, {}", letter.id, letter.state.name());
    println!("consumer     {}, of stream {} at {}", letter.consumer, letter.stream, letter.stream_seq);
    println!("error        {}", letter.error);
    println!("tries        {}, from {} to {}", letter.attempts, moment(letter.first_at), moment(letter.dead_at));
    print_message(&letter.message);
    print_payload(&letter.message);
    Ok(Code::Ok)
}

async fn requeue(id: i64, args: &DlqArgs) -> Outcome {
    let (service, database, letter) = find(id, args).await?;
    dead_letter::requeue(&database, id).await.map_err(undecided(service))?;
    let told = format!("{} tries dead letter {id} again within seconds, if it runs", letter.consumer);
    tell(service, id, State::Requeued, &told, args)
}

async fn discard(id: i64, args: &DlqArgs) -> Outcome {
    let (service, database, _) = find(id, args).await?;
    dead_letter::discard(&database, id).await.map_err(undecided(service))?;
    tell(service, id, State::Discarded, &format!("dead letter {id} of {service} is given up"), args)
}

fn undecided(service: ServiceName) -> impl Fn(DecisionError) -> Failure {
    move |error| match error {
        DecisionError::Database(error) => away(service)(error),
        error => Failure::new(Code::Failure, error),
    }
}

fn tell(service: ServiceName, id: i64, state: State, told: &str, args: &DlqArgs) -> Outcome {
    if args.json {
        println!("{}", json!({ "service": service.to_string(), "id": id, "state": state.name() }));
    } else {
        println!("{told}");
    }
    Ok(Code::Ok)
}

async fn requeue_all(consumer: &str, args: &DlqArgs) -> Outcome {
    let mut requeued = 0;
    for (service, database) in attach(args).await? {
        requeued += dead_letter::requeue_all(&database, consumer).await.map_err(away(service))?;
    }
    if args.json {
        println!("{}", json!({ "consumer": consumer, "requeued": requeued }));
    } else {
        println!("{requeued} dead letters of {consumer} are requeued");
    }
    Ok(Code::Ok)
}
