//! What SSH through the gateway costs, beside the two other ways to a container's own server: straight, where one can,
//! and by `ssh -J` over OpenSSH.
//!
//! All three lead to the same server, with the same cipher, in one run and in turns. What counts is the ratio within a
//! round: absolute figures are the machine's.
//!
//! `cargo xtask bench ssh [ARGS]`

#[allow(dead_code, unused_imports, reason = "it is the tests' harness, of which this needs a part")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod measure;
mod options;
mod report;
#[allow(dead_code, reason = "it is the tests' own, of which this needs a part")]
#[path = "../../tests/it/ssh/site.rs"]
mod site;
mod way;

use std::process::ExitCode;

use options::Options;
use way::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench ssh: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    let mut stage = Stage::build().await;
    // Everything below starts programs and waits for them.
    let findings = tokio::task::block_in_place(|| measure::all(&mut stage, &options));
    print!("{}", report::markdown(&findings, &options));
    stage.end().await;
    ExitCode::SUCCESS
}
