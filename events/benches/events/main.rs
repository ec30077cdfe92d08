//! How fast events are, beside the bare rates of the database and the bus that carry them.
//!
//! Each round measures, on SQLite with the local bus and on PostgreSQL with JetStream, the bare rates and then the events,
//! on empty databases and an empty bus, every commit and every acknowledgement on disk. What counts is the ratio within a
//! round, and the median of those: absolute figures are the machine's.
//!
//! `cargo xtask bench events [ARGS]`

mod bare;
mod figures;
mod nats;
mod options;
mod postgres;
mod report;
mod sqlite;
mod stage;

use std::process::ExitCode;

use figures::Sizes;
use options::Options;
use report::Report;
use stage::{Servers, Setup, Stage};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench events: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let servers = Servers::for_setups(&options.setups);
    let mut report = Report::new(options.rows);
    for round in 1..=options.rounds {
        for setup in options.setups.iter().copied() {
            eprintln!("bench events: round {round} of {}, {}", options.rounds, setup.title());
            let sample = measure(setup, &servers, &options.sizes()).await;
            eprintln!("bench events: {sample:?}");
            report.add(setup, sample);
        }
    }
    if options.is_json {
        println!("{}", report.json());
    } else {
        print!("{}", report.markdown());
    }
    ExitCode::SUCCESS
}

async fn measure(setup: Setup, servers: &Servers, sizes: &Sizes) -> report::Sample {
    let bare = {
        let stage = Stage::new(setup, servers).await;
        bare::Rates::measure(&stage, sizes).await
    };
    let stage = Stage::new(setup, servers).await;
    let throughput = figures::throughput(&stage, sizes).await;
    let latency = figures::latency(&stage, sizes).await;
    drop(stage);
    let stage = Stage::new(setup, servers).await;
    let drain = figures::drain(&stage, sizes).await;
    let replays = figures::replays(&stage, sizes).await;
    report::Sample { bare, throughput, latency, drain, replays }
}
