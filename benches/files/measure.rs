//! Rates by each way, and memory while much is on its way.

use std::fs;
use std::time::{Duration, Instant};

use crate::load::{Client, Small, small};
use crate::options::Options;
use crate::way::{Stage, Way};

/// What was found of one way.
#[derive(Debug)]
pub struct Finding {
    pub way: Way,
    pub rounds: Vec<Round>,
    /// Of the share and of the gateway, in bytes: before the upload, and at most during it.
    pub memory: Option<[(u64, u64); 2]>,
}

/// Files and MiB a second.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub small_up: f64,
    pub small_down: f64,
    pub large_up: f64,
    pub large_down: f64,
}

pub async fn all(stage: &mut Stage, options: &Options) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        Way::ALL.into_iter().map(|way| Finding { way, rounds: Vec::new(), memory: None }).collect();
    // First, since a process that had much to do keeps what it needed for that.
    if let Some(mib) = options.memory_mib {
        eprintln!("bench files: {mib} MiB through the gateway, memory watched");
        let behind = findings.iter_mut().find(|finding| finding.way == Way::ShareBehind).expect("one of all");
        behind.memory = Some(memory(stage, mib).await);
    }
    for round in 0..options.rounds {
        eprintln!("bench files: round {} of {}", round + 1, options.rounds);
        for turn in 0..findings.len() {
            let at = (round + turn) % findings.len();
            let measured = measure(stage, findings[at].way, round, options).await;
            findings[at].rounds.push(measured);
        }
    }
    findings
}

async fn measure(stage: &Stage, way: Way, round: usize, options: &Options) -> Round {
    let server = stage.server(way);
    // Both ways to the same server share its names.
    let (folder, large) = (format!("{way:?}-{round}"), format!("{way:?}-{round}.large"));
    let count = |took: Duration| options.files as f64 / took.as_secs_f64();
    let rate = |took: Duration| options.large_mib as f64 / took.as_secs_f64();
    let small_up = count(small(&server, Small::Put, &folder, options.files, options.connections).await);
    let small_down = count(small(&server, Small::Get, &folder, options.files, options.connections).await);
    let mut client = Client::connect(&server).await;
    let began = Instant::now();
    client.put_large(&large, options.large_mib).await;
    let large_up = rate(began.elapsed());
    let began = Instant::now();
    let received = client.get(&large).await;
    let large_down = rate(began.elapsed());
    assert_eq!(received, options.large_mib << 20, "{large}");
    client.delete(&large).await;
    Round { small_up, small_down, large_up, large_down }
}

async fn memory(stage: &mut Stage, mib: usize) -> [(u64, u64); 2] {
    let processes = stage.processes();
    let server = stage.server(Way::ShareBehind);
    let mut client = Client::connect(&server).await;
    // Once in small, for what is made at the first of all uploads.
    client.put_large("memory", 16).await;
    client.delete("memory").await;
    // From now on counts the most.
    processes.iter().for_each(|process| fs::write(format!("/proc/{process}/clear_refs"), "5").expect("our own child"));
    let before = processes.map(|process| status_bytes(process, "VmRSS"));
    client.put_large("memory", mib).await;
    let most = processes.map(|process| status_bytes(process, "VmHWM"));
    client.delete("memory").await;
    [(before[0], most[0]), (before[1], most[1])]
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("our own child");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.expect("Linux tells it") * 1024
}
