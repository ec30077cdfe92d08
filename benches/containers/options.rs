//! What the command line asks for.

use std::time::Duration;

use crate::changes::Samples;

pub const HELP: &str = "\
cargo xtask bench containers [ARGS]

  --only SETUP   sqlite (edd up) or postgres (separate processes, with JetStream); none: the tables alone
  --changes N    changes of a container, 300 unless told
  --ports N      port rules, 60 unless told
  --sleeps N     times that a container falls asleep and is woken, of each kind, 30 unless told
  --fleets N,..  sizes of the gateway's table, side by side: 10,100000,1000000 unless told; 0: none
  --rounds N     rounds of the load on those, 5 unless told
  --seconds N    length of one run of it, 2 unless told
  --help         this text
";

const MAX_FLEET: usize = 2_000_000;

/// What the services run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Sqlite,
    Postgres,
}

impl Setup {
    const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    pub fn title(self) -> &'static str {
        match self {
            Self::Sqlite => "one process, SQLite and its own log",
            Self::Postgres => "separate processes, PostgreSQL and JetStream",
        }
    }
}

#[derive(Debug)]
pub struct Options {
    pub setups: Vec<Setup>,
    pub samples: Samples,
    pub fleets: Vec<usize>,
    pub rounds: usize,
    /// Length of one run of the load.
    pub run: Duration,
}

impl Options {
    /// None if help is asked for.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = words.into_iter();
        let mut options = Self {
            setups: Setup::ALL.to_vec(),
            samples: Samples { changes: 300, ports: 60, sleeps: 30 },
            fleets: vec![10, 100_000, 1_000_000],
            rounds: 5,
            run: Duration::from_secs(2),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--only" => options.setups = setups(&value()?)?,
                "--changes" => options.samples.changes = number(&word, &value()?)?,
                "--ports" => options.samples.ports = number(&word, &value()?)?,
                "--sleeps" => options.samples.sleeps = number(&word, &value()?)?,
                "--fleets" => options.fleets = fleets(&value()?)?,
                "--rounds" => options.rounds = number(&word, &value()?)?,
                "--seconds" => options.run = Duration::from_secs(number(&word, &value()?)? as u64),
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => return Err(format!("`{word}` is not understood")),
            }
        }
        Ok(Some(options))
    }
}

fn setups(text: &str) -> Result<Vec<Setup>, String> {
    match text {
        "sqlite" => Ok(vec![Setup::Sqlite]),
        "postgres" => Ok(vec![Setup::Postgres]),
        "none" => Ok(Vec::new()),
        _ => Err(format!("--only: `{text}` is none of sqlite, postgres, none")),
    }
}

fn fleets(text: &str) -> Result<Vec<usize>, String> {
    if text == "0" {
        return Ok(Vec::new());
    }
    let sizes = text.split(',').map(|size| number("--fleets", size)).collect::<Result<Vec<_>, _>>()?;
    match sizes.iter().find(|size| **size > MAX_FLEET) {
        Some(size) => Err(format!("--fleets: {size} is more than {MAX_FLEET}")),
        None => Ok(sizes),
    }
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    let number = text.replace('_', "").parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: `{text}` is no number above 0"))
}
