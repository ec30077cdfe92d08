//! `edd sfs check`: whether what the database says of files is true.

use std::sync::Arc;

use clap::{Args, Subcommand};
use edd_control::sfs::check::{Check, Finding, Options, Summary};
use edd_control::sfs::config::SfsConfig;
use edd_control::sfs::service::{Foundation, Service};
use edd_control::sfs::{SOURCE, error::SfsError};
use edd_events::clock::SystemClock;
use edd_events::publisher::Publisher;
use edd_proto::Encoding;
use serde_json::json;

use super::StoreArgs;
use crate::admin_client::block_on;
use crate::databases::{DatabaseArgs, ServiceName};
use crate::exit::{Code, Failure, Outcome};

#[derive(Debug, Subcommand)]
pub enum SfsCommand {
    /// Compare the database with the bytes that are stored; exits with 1 if there are differences left. The share may
    /// run meanwhile.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Repair what can be repaired without losing anything that anybody has.
    #[arg(long)]
    repair: bool,
    /// Read all bytes, too, and compare their SHA-256.
    #[arg(long)]
    content: bool,
    /// Delete files whose bytes are lost. Without it they stay, to be seen and asked for.
    #[arg(long, requires = "repair")]
    delete_lost: bool,
    /// Print what is found as it is found, one line of JSON each, and a summary last.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    databases: DatabaseArgs,
}

pub fn run(command: SfsCommand) -> Outcome {
    let SfsCommand::Check(args) = command;
    let summary = block_on(check(&args))?;
    let left = summary.differences - summary.repaired;
    match args.json {
        true => println!(
            "{}",
            json!({ "summary": {
                "objects": summary.objects, "blobs": summary.blobs, "contents": summary.contents,
                "namespaces": summary.namespaces, "differences": summary.differences, "repaired": summary.repaired,
            }})
        ),
        false => println!(
            "{} objects, {} blobs, {} contents, {} namespaces: {} differences, {} repaired",
            summary.objects, summary.blobs, summary.contents, summary.namespaces, summary.differences, summary.repaired
        ),
    }
    Ok(if left == 0 { Code::Ok } else { Code::Failure })
}

async fn check(args: &CheckArgs) -> Result<Summary, Failure> {
    let database = args.databases.only(ServiceName::Sfs)?.attach(ServiceName::Sfs).await?;
    let store = args.store.open(&args.databases.data_dir)?;
    let clock = Arc::new(SystemClock);
    // Nothing that it repairs is an event: what users have stays as it is.
    let publisher = Publisher::new(SOURCE, Encoding::Protobuf, clock.clone());
    let service = Service::new(SfsConfig::default(), Foundation { database, publisher, clock, store });
    let options = Options { reads_content: args.content, repairs: args.repair, deletes_lost: args.delete_lost };
    let mut tell = |finding: &Finding| print(finding, args.json);
    Check::run(&service, options, &mut tell).await.map_err(|error| match error {
        SfsError::Storage(_) | SfsError::Database(_) => Failure::unavailable(error),
        error => error.into(),
    })
}

fn print(finding: &Finding, as_json: bool) {
    let Finding { difference, outcome } = finding;
    if !as_json {
        println!("{}: {difference}", outcome.as_str());
        return;
    }
    let files: Vec<_> = difference.files().iter().map(|(namespace, path)| format!("{namespace}/{path}")).collect();
    let (kind, outcome, message) = (difference.kind(), outcome.as_str(), difference.to_string());
    println!("{}", json!({ "kind": kind, "outcome": outcome, "message": message, "files": files }));
}
