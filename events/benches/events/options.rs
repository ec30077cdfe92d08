//! What the command line asks for.

use std::time::Duration;

use crate::figures::Sizes;
use crate::stage::Setup;

pub const HELP: &str = "\
cargo xtask bench events [ARGS]

  --rows N       events in the backlog and in the replay, 20000 unless told
  --full         as --rows 1000000 --rounds 1: takes minutes, and a few gigabytes
  --rounds N     how often everything is measured, 3 unless told
  --only SETUP   sqlite (with the local bus) or postgres (with JetStream)
  --json         a JSON object instead of the table
  --help         this text
";

const ROWS: usize = 20_000;
const FULL_ROWS: usize = 1_000_000;
const ROUNDS: u32 = 3;

#[derive(Debug)]
pub struct Options {
    pub setups: Vec<Setup>,
    pub rows: usize,
    pub rounds: u32,
    pub is_json: bool,
}

impl Options {
    /// None if help is asked for.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let mut words = words.into_iter();
        let mut options = Self { setups: Setup::ALL.to_vec(), rows: ROWS, rounds: ROUNDS, is_json: false };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} lacks its value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--full" => (options.rows, options.rounds) = (FULL_ROWS, 1),
                "--json" => options.is_json = true,
                "--rows" => options.rows = number(&word, &value()?)?,
                "--rounds" => options.rounds = number(&word, &value()?)?,
                "--only" => options.setups = vec![setup(&value()?)?],
                // Cargo says it to every benchmark.
                "--bench" => {}
                _ => return Err(format!("`{word}` is not understood")),
            }
        }
        Ok(Some(options))
    }

    pub fn sizes(&self) -> Sizes {
        Sizes { rows: self.rows, bare: Duration::from_secs(1), load: Duration::from_secs(5), latency_samples: 200 }
    }
}

fn number<N: TryFrom<usize>>(name: &str, text: &str) -> Result<N, String> {
    let number = text.replace('_', "").parse::<usize>().ok().filter(|number| *number > 0);
    number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| format!("{name}: `{text}` is no number above 0"))
}

fn setup(text: &str) -> Result<Setup, String> {
    let found = Setup::ALL.into_iter().find(|setup| setup.id() == text);
    found.ok_or_else(|| format!("--only: `{text}` is neither sqlite nor postgres"))
}
