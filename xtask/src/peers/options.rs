//! The command line of `cargo xtask bench peers`.

use super::peer::Peer;
use super::workload::Workload;
use crate::failure::Failure;

pub const HELP: &str = "\
cargo xtask bench peers [options]

  --rounds N        rounds, each with every peer once (6)
  --seconds N       length of one run (1)
  --only A,B        these peers: edd, edd-logged, nginx, haproxy, envoy, caddy (all that are installed)
  --workload A,B    these: h1, h1tls, h2, tls-new, body, memory (all)

Prints a markdown table; every single run is in target/bench/peers.json.
";

/// More of either would only wear the machine out.
const MAX_ROUNDS: u32 = 100;
const MAX_SECONDS: u32 = 60;

#[derive(Debug, PartialEq)]
pub struct Options {
    pub rounds: u32,
    pub seconds: u32,
    pub peers: Vec<Peer>,
    pub workloads: Vec<Workload>,
    /// Idle connections have no rounds: they are held once, or not at all.
    pub memory: bool,
}

impl Options {
    /// None asks for the help text.
    pub fn parse(args: &[String]) -> Result<Option<Self>, Failure> {
        let mut options =
            Self { rounds: 6, seconds: 1, peers: Peer::ALL.to_vec(), workloads: Workload::ALL.to_vec(), memory: true };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                return Ok(None);
            }
            let mut value = || words.next().ok_or_else(|| Failure::usage(format!("{word} needs a value")));
            match word.as_str() {
                "--rounds" => options.rounds = number(word, value()?, MAX_ROUNDS)?,
                "--seconds" => options.seconds = number(word, value()?, MAX_SECONDS)?,
                "--only" => options.peers = peers(value()?)?,
                "--workload" => (options.workloads, options.memory) = workloads(value()?)?,
                other => return Err(Failure::usage(format!("bench peers: no option `{other}`; try --help"))),
            }
        }
        Ok(Some(options))
    }
}

fn number(option: &str, text: &str, max: u32) -> Result<u32, Failure> {
    let wrong = || Failure::usage(format!("{option} takes a number from 1 to {max}, got `{text}`"));
    text.parse().ok().filter(|number| (1..=max).contains(number)).ok_or_else(wrong)
}

/// The peers of a list, in the table's order.
fn peers(list: &str) -> Result<Vec<Peer>, Failure> {
    if let Some(name) = list.split(',').find(|name| Peer::ALL.iter().all(|peer| peer.id() != *name)) {
        return Err(Failure::usage(format!("no peer named `{name}`")));
    }
    Ok(Peer::ALL.into_iter().filter(|peer| list.split(',').any(|name| name == peer.id())).collect())
}

/// The workloads of a list, in the table's order, and whether `memory` is among them.
fn workloads(list: &str) -> Result<(Vec<Workload>, bool), Failure> {
    let known = |name: &str| name == "memory" || Workload::ALL.iter().any(|workload| workload.group() == name);
    if let Some(name) = list.split(',').find(|name| !known(name)) {
        return Err(Failure::usage(format!("no workload named `{name}`")));
    }
    let wanted = |workload: &Workload| list.split(',').any(|name| name == workload.group());
    Ok((Workload::ALL.into_iter().filter(wanted).collect(), list.split(',').any(|name| name == "memory")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, Failure> {
        Options::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_the_default() {
        let options = parse("").unwrap().unwrap();
        assert_eq!((options.rounds, options.seconds, options.memory), (6, 1, true));
        assert_eq!(options.peers.len(), Peer::ALL.len());
        assert_eq!(options.workloads.len(), Workload::ALL.len());
    }

    #[test]
    fn lists_choose_and_keep_the_order_of_the_table() {
        let options = parse("--only nginx,edd --workload memory,body,h1 --rounds 2 --seconds 3").unwrap().unwrap();
        assert_eq!(options.peers, [Peer::Edd, Peer::Nginx]);
        assert_eq!(options.workloads, [Workload::H1, Workload::Body, Workload::BodyTls]);
        assert_eq!((options.rounds, options.seconds, options.memory), (2, 3, true));
        assert!(!parse("--workload h2").unwrap().unwrap().memory);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["--rounds", "--rounds 0", "--seconds 61", "--only apache", "--only nginx,", "--workload h3", "-x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("--rounds 2 --help").unwrap(), None);
    }
}
