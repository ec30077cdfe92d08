//! Percentiles and medians, as tables.

use std::time::Duration;

use crate::changes::Findings;
use crate::fleet::Finding;
use crate::options::Setup;

/// What a line of the table is made of.
type Samples = fn(&Findings) -> Vec<Duration>;

/// The table of what was found with each setup.
pub fn changes(columns: &[(Setup, Findings)]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let mut text = String::from("| p50 / p99 in ms |");
    columns.iter().for_each(|(setup, _)| text += &format!(" {} |", setup.title()));
    text += "\n|---|";
    text += &"---|".repeat(columns.len());
    text.push('\n');
    let times = |of: Samples| columns.iter().map(move |(_, findings)| percentiles(of(findings)));
    let lines: [(&str, Samples); 6] = [
        ("a container's change, from the commit to the gateway's answer", |findings| {
            findings.changes.iter().map(|lag| lag.from_answer).collect()
        }),
        ("the same, from the request for the change", |findings| {
            findings.changes.iter().map(|lag| lag.from_request).collect()
        }),
        ("a port, from the commit to an answer on it", |findings| {
            findings.ports.iter().map(|lag| lag.from_answer).collect()
        }),
        ("a new container, from the request to its first page", |findings| findings.creations.clone()),
        ("a request that wakes a paused container", |findings| findings.from_pause.clone()),
        ("a request that wakes a stopped container", |findings| findings.from_stop.clone()),
    ];
    for (title, of) in lines {
        let cells: Vec<_> = times(of).collect();
        text += &format!("| {title} | {} |\n", cells.join(" | "));
    }
    text
}

/// The table of sizes, of which the first is what the others are held against.
pub fn fleets(findings: &[Finding]) -> String {
    let mut text = String::from(
        "| containers in the table | memory of the gateway | loaded in | requests/s (ratio) | s per 100k requests (ratio) |\n\
         |---|---|---|---|---|\n",
    );
    let Some(first) = findings.first() else { return text };
    for finding in findings {
        let of = |pick: fn(&(f64, f64)) -> f64| {
            let own = median(finding.rounds.iter().map(pick).collect());
            let pairs = finding.rounds.iter().zip(&first.rounds);
            (own, median(pairs.map(|(own, first)| pick(own) / pick(first)).collect()))
        };
        let ((rate, rate_ratio), (cost, cost_ratio)) = (of(|round| round.0), of(|round| round.1));
        text += &format!(
            "| {} | {} MB | {:.1} s | {rate:.0} ({rate_ratio:.2}) | {cost:.2} ({cost_ratio:.2}) |\n",
            finding.containers,
            finding.resident_bytes / 1_000_000,
            finding.loaded_in.as_secs_f64(),
        );
    }
    text
}

/// The median and the 99th of a hundred, in milliseconds.
fn percentiles(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    let at = |percent: usize| samples[(samples.len() * percent / 100).min(samples.len() - 1)].as_secs_f64() * 1000.0;
    if samples.is_empty() { "–".to_owned() } else { format!("{:.1} / {:.1}", at(50), at(99)) }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
