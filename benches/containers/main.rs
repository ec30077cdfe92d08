//! How fast containers are: from a commit in compute to the gateway's answer, from sleep to an answer, and what a large
//! table of them costs.
//!
//! Real processes over real sockets, as users have them. Sizes of the table are compared side by side, in turns, in one
//! run: what counts is the ratio within a round, since absolute figures are the machine's.
//!
//! `cargo xtask bench containers [ARGS]`

mod changes;
mod fleet;
#[allow(dead_code, unused_imports, reason = "it is the tests' harness, of which this needs a part")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod load;
mod options;
mod report;

use std::process::ExitCode;

use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use harness::Deployment;
use options::{Options, Setup};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench containers: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let mut columns = Vec::new();
    for setup in options.setups.iter().copied() {
        eprintln!("bench containers: {}", setup.title());
        let nats = (setup == Setup::Postgres).then(Nats::start);
        let deploy = || match &nats {
            Some(nats) => Deployment::separate(nats, Postgres::shared()),
            None => Deployment::single(),
        };
        columns.push((setup, changes::measure(deploy, &options.samples).await));
    }
    print!("{}", report::changes(&columns));
    if !options.fleets.is_empty() {
        eprintln!("bench containers: tables of {:?} containers", options.fleets);
        let fleets = fleet::measure(&options.fleets, options.rounds, options.run).await;
        print!("\n{}", report::fleets(&fleets));
    }
    ExitCode::SUCCESS
}
