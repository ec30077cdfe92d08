//! Medians and ratios, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bare::Rates;
use crate::figures::WRITERS;
use crate::stage::Setup;

/// What one round found with one setup.
#[derive(Clone, Debug)]
pub struct Sample {
    pub bare: Rates,
    /// Events per second.
    pub throughput: f64,
    /// In ascending order.
    pub latency: Vec<Duration>,
    /// Events per second: from the outbox to the bus, and from there to their effect.
    pub drain: [f64; 2],
    /// Events per second from the stream, rows per second from the owner.
    pub replays: [f64; 2],
}

/// All rounds.
#[derive(Debug)]
pub struct Report {
    rows: usize,
    samples: Vec<(Setup, Sample)>,
}

/// A line of the table.
struct Line {
    id: &'static str,
    title: String,
    unit: Unit,
    /// Of one round.
    value: fn(&Sample) -> f64,
    /// What its bare parts would do, one after the other; none of a bare rate.
    bare: Option<fn(&Sample) -> f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Milliseconds,
}

/// The rate of several steps, each of which is done at a rate of its own.
fn in_sequence(rates: &[f64]) -> f64 {
    1.0 / rates.iter().map(|rate| 1.0 / rate).sum::<f64>()
}

/// In milliseconds; `samples` are in ascending order.
fn percentile(samples: &[Duration], percent: usize) -> f64 {
    let index = (samples.len() * percent / 100).min(samples.len() - 1);
    samples[index].as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Report {
    pub fn new(rows: usize) -> Self {
        Self { rows, samples: Vec::new() }
    }

    pub fn add(&mut self, setup: Setup, sample: Sample) {
        self.samples.push((setup, sample));
    }

    fn lines(&self) -> Vec<Line> {
        let bare = |id, title: &str, value| Line {
            id,
            title: format!("bare: {title}"),
            unit: Unit::PerSecond,
            value,
            bare: None,
        };
        let event = |id, title: String, unit, value, bare| Line { id, title, unit, value, bare: Some(bare) };
        let rows = self.rows;
        vec![
            bare("commits", "commits, one after the other", |sample| sample.bare.commits),
            bare("commits_at_once", &format!("commits, {WRITERS} at once"), |sample| sample.bare.commits_at_once),
            bare("rows", "rows, 256 to a commit", |sample| sample.bare.rows),
            bare("publishes", "messages published, one after the other", |sample| sample.bare.publishes),
            bare("published_in_batches", "messages published, 256 at once", |sample| sample.bare.published_in_batches),
            bare("taken", "messages taken and acknowledged, 256 at once", |sample| sample.bare.taken),
            bare("read", "messages read, 256 at once", |sample| sample.bare.read),
            event(
                "throughput",
                format!("events, {WRITERS} writers, to their effect"),
                Unit::PerSecond,
                |sample| sample.throughput,
                |Sample { bare, .. }| {
                    in_sequence(&[bare.commits_at_once, bare.published_in_batches, bare.taken, bare.rows])
                },
            ),
            event(
                "drain_outbox",
                format!("a backlog of {rows}, from the outbox to the bus"),
                Unit::PerSecond,
                |sample| sample.drain[0],
                |sample| sample.bare.published_in_batches,
            ),
            event(
                "drain_bus",
                format!("a backlog of {rows}, from the bus to its effect"),
                Unit::PerSecond,
                |sample| sample.drain[1],
                |Sample { bare, .. }| in_sequence(&[bare.taken, bare.rows]),
            ),
            event(
                "replay_stream",
                format!("replay of {rows} from the stream"),
                Unit::PerSecond,
                |sample| sample.replays[0],
                |Sample { bare, .. }| in_sequence(&[bare.read, bare.rows]),
            ),
            event(
                "replay_owner",
                format!("replay of {rows} from the owner"),
                Unit::PerSecond,
                |sample| sample.replays[1],
                |sample| sample.bare.rows,
            ),
            event(
                "latency_p50_ms",
                "commit to effect, p50".to_owned(),
                Unit::Milliseconds,
                |sample| percentile(&sample.latency, 50),
                |sample| percentile(&sample.bare.latency, 50),
            ),
            event(
                "latency_p99_ms",
                "commit to effect, p99".to_owned(),
                Unit::Milliseconds,
                |sample| percentile(&sample.latency, 99),
                |sample| percentile(&sample.bare.latency, 99),
            ),
        ]
    }

    fn setups(&self) -> Vec<Setup> {
        let measured = |setup: &Setup| self.samples.iter().any(|(other, _)| other == setup);
        Setup::ALL.into_iter().filter(measured).collect()
    }

    /// The median of the rounds: of the value, of what the bare parts do, and of the ratio of the two in a round.
    fn of(&self, setup: Setup, line: &Line) -> (f64, Option<(f64, f64)>) {
        let samples = || self.samples.iter().filter(|(other, _)| *other == setup).map(|(_, sample)| sample);
        let value = median(samples().map(line.value).collect());
        let bare = line.bare.map(|bare| {
            let ratios = samples().map(|sample| (line.value)(sample) / bare(sample));
            (median(samples().map(bare).collect()), median(ratios.collect()))
        });
        (value, bare)
    }

    pub fn markdown(&self) -> String {
        let setups = self.setups();
        let titles: String = setups.iter().map(|setup| format!(" {} |", setup.title())).collect();
        let mut text = format!("| per second; in brackets the ratio to its bare parts |{titles}\n");
        text += &format!("|---|{}\n", "---|".repeat(setups.len()));
        for line in self.lines() {
            let cells = setups.iter().map(|setup| match (self.of(*setup, &line), line.unit) {
                ((value, None), _) => format!(" {value:.0} |"),
                ((value, Some((_, ratio))), Unit::PerSecond) => format!(" {value:.0} ({ratio:.2}) |"),
                ((value, Some((_, ratio))), Unit::Milliseconds) => format!(" {value:.1} ms ({ratio:.2}) |"),
            });
            text += &format!("| {} |{}\n", line.title, cells.collect::<String>());
        }
        text
    }

    pub fn json(&self) -> Value {
        let setups = self.setups().into_iter().map(|setup| {
            let figures = self.lines().into_iter().map(|line| {
                let figure = match self.of(setup, &line) {
                    (value, None) => json!({"value": value}),
                    (value, Some((bare, ratio))) => json!({"value": value, "bare": bare, "ratio": ratio}),
                };
                (line.id.to_owned(), figure)
            });
            (setup.id().to_owned(), Value::Object(figures.collect()))
        });
        let rounds = self.samples.len() / self.setups().len().max(1);
        json!({"rows": self.rows, "rounds": rounds, "setups": Value::Object(setups.collect())})
    }
}
