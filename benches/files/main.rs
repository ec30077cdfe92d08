//! What the file share costs, beside nginx that receives (WebDAV PUT) and serves the same files on the same disk: each
//! straight, and through edd's gateway.
//!
//! All are asked by one client, in one run and in turns. What counts is the ratio within a round: absolute figures are
//! the machine's. nginx leaves it to the system when bytes reach the disk; a file that the share has accepted is there.
//!
//! `cargo xtask bench files [ARGS]`

#[allow(dead_code, unused_imports, reason = "it is the tests' harness, of which this needs a part")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod load;
mod measure;
mod nginx;
mod options;
mod report;
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
            eprintln!("bench files: {error}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    if edd_servers::program::candidates("nginx", ["/usr/sbin".into()]).is_empty() {
        eprintln!("bench files: no nginx here\n\n{}", options::HELP);
        return ExitCode::from(69);
    }
    let mut stage = Stage::build().await;
    let findings = measure::all(&mut stage, &options).await;
    print!("{}", report::markdown(&findings, &options));
    stage.end().await;
    ExitCode::SUCCESS
}
