//! What a comparison says: medians and paired ratios as a markdown table, and every run as JSON.

use super::peer::Peer;
use super::workload::{Sample, Workload};

/// One run.
pub struct Entry {
    pub peer: Peer,
    pub round: u32,
    pub sample: Sample,
}

/// Resident bytes of a fresh server: idle, with idle plain connections, with as many idle TLS ones on top.
pub struct Memory {
    pub peer: Peer,
    pub resident_bytes: [u64; 3],
}

pub struct Report {
    /// In the order of the table.
    pub peers: Vec<Peer>,
    /// Names with versions.
    pub versions: Vec<String>,
    pub entries: Vec<Entry>,
    pub memory: Vec<Memory>,
    /// Idle connections of each kind in `memory`.
    pub idle_connections: u32,
}

impl Report {
    /// Costs are compared with haproxy's, or in its absence with those of the last peer.
    fn reference(&self) -> Option<Peer> {
        if self.peers.contains(&Peer::Haproxy) { Some(Peer::Haproxy) } else { self.peers.last().copied() }
    }

    pub fn markdown(&self) -> String {
        let reference = self.reference().map_or("", Peer::title);
        let idle = self.idle_connections;
        let mut text = format!(
            "CPU time of the proxy, median (× {reference}, median of the ratio per round). {}.\n\n\
             | Peer | h1, s per 100k requests | h1 p50/p99 µs | h1 over TLS | h2 over TLS | ms per TLS handshake \
             | 100 MiB body plain / TLS, s per GiB | RSS MB idle → {idle} idle plain → + {idle} idle TLS |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.versions.join(", "),
        );
        for peer in self.peers.iter().copied() {
            let body = format!("{} / {}", self.cost(peer, Workload::Body), self.cost(peer, Workload::BodyTls));
            let cells = [
                peer.title().to_owned(),
                self.cost(peer, Workload::H1),
                self.latency(peer),
                self.cost(peer, Workload::H1Tls),
                self.cost(peer, Workload::H2),
                self.cost(peer, Workload::TlsNew),
                body,
                self.resident(peer),
            ];
            text += &format!("| {} |\n", cells.join(" | "));
        }
        text + &self.conditions()
    }

    /// How far the figures can be trusted.
    fn conditions(&self) -> String {
        let busy = self.peers.iter().map(|peer| self.busy(*peer)).collect::<Vec<_>>().join("; ");
        let disturbed = || self.entries.iter().map(|entry| entry.sample.disturbed() * 100.0);
        let (Some(middle), worst) = (median(disturbed()), disturbed().fold(0.0, f64::max)) else {
            return String::new();
        };
        format!(
            "\nShare of its core that the proxy used (h1, h1 over TLS, h2 over TLS): {busy}. Where it is well below 100 %, \
             the load's core was the limit. Others used {middle:.0} % of the proxy's core in the median run, {worst:.0} % in \
             the worst; above 10 % the figures are worth little.\n"
        )
    }

    fn samples(&self, peer: Peer, workload: Workload) -> impl Iterator<Item = (u32, &Sample)> {
        let entries = self.entries.iter().filter(move |entry| entry.peer == peer);
        entries.filter(move |entry| entry.sample.workload == workload).map(|entry| (entry.round, &entry.sample))
    }

    fn cost(&self, peer: Peer, workload: Workload) -> String {
        let Some(cost) = median(self.samples(peer, workload).map(|(_, sample)| sample.cost())) else {
            return "–".to_owned();
        };
        match self.ratio(peer, workload) {
            Some(ratio) => format!("{cost:.2} ({ratio:.2})"),
            None => format!("{cost:.2}"),
        }
    }

    /// The median over the rounds of what `peer` cost in units of what the reference cost in the same round.
    fn ratio(&self, peer: Peer, workload: Workload) -> Option<f64> {
        let reference = self.reference()?;
        let pairs = self.samples(peer, workload).filter_map(|(round, sample)| {
            let (_, other) = self.samples(reference, workload).find(|(other, _)| *other == round)?;
            Some(sample.cost() / other.cost())
        });
        median(pairs.filter(|ratio| ratio.is_finite()))
    }

    fn latency(&self, peer: Peer) -> String {
        let of =
            |pick: fn(&Sample) -> Option<f64>| median(self.samples(peer, Workload::H1).filter_map(|(_, s)| pick(s)));
        match (of(|sample| sample.done.p50_us), of(|sample| sample.done.p99_us)) {
            (Some(p50), Some(p99)) => format!("{p50:.0}/{p99:.0}"),
            _ => "–".to_owned(),
        }
    }

    fn resident(&self, peer: Peer) -> String {
        let Some(memory) = self.memory.iter().find(|memory| memory.peer == peer) else { return "–".to_owned() };
        memory.resident_bytes.map(|bytes| format!("{:.0}", bytes as f64 / 1e6)).join(" → ")
    }

    fn busy(&self, peer: Peer) -> String {
        let share = |workload| match median(self.samples(peer, workload).map(|(_, sample)| sample.busy())) {
            Some(busy) => format!("{:.0} %", busy * 100.0),
            None => "–".to_owned(),
        };
        format!("{} {}", peer.title(), [Workload::H1, Workload::H1Tls, Workload::H2].map(share).join(", "))
    }

    /// No string in it needs escaping but the versions, which peers print; those keep only plain characters.
    pub fn json(&self) -> String {
        let plain = |text: &String| {
            format!("\"{}\"", text.replace(|c: char| !c.is_ascii_graphic() && c != ' ' || c == '"' || c == '\\', "?"))
        };
        let versions = self.versions.iter().map(plain).collect::<Vec<_>>().join(", ");
        let runs = self.entries.iter().map(run_json).collect::<Vec<_>>().join(",\n    ");
        let memory = self.memory.iter().map(memory_json).collect::<Vec<_>>().join(",\n    ");
        format!(
            "{{\n  \"versions\": [{versions}],\n  \"idle_connections\": {},\n  \"runs\": [\n    {runs}\n  ],\n  \
             \"memory\": [\n    {memory}\n  ]\n}}\n",
            self.idle_connections
        )
    }
}

fn run_json(entry: &Entry) -> String {
    let number = |value: Option<f64>| value.map_or("null".to_owned(), |value| value.to_string());
    let Sample { workload, done, cpu_seconds, others_seconds, wall_seconds } = &entry.sample;
    format!(
        "{{\"peer\": \"{}\", \"workload\": \"{}\", \"round\": {}, \"operations\": {}, \"cpu_seconds\": {cpu_seconds:.2}, \
         \"others_seconds\": {others_seconds:.2}, \"wall_seconds\": {wall_seconds:.3}, \"p50_us\": {}, \"p99_us\": {}}}",
        entry.peer.id(),
        workload.id(),
        entry.round,
        done.operations,
        number(done.p50_us),
        number(done.p99_us),
    )
}

fn memory_json(memory: &Memory) -> String {
    let [idle, plain, tls] = memory.resident_bytes;
    let peer = memory.peer.id();
    format!("{{\"peer\": \"{peer}\", \"idle_bytes\": {idle}, \"plain_bytes\": {plain}, \"tls_bytes\": {tls}}}")
}

/// The middle value, or the mean of the two in the middle; None of nothing.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::super::load::Done;
    use super::*;

    fn entry(peer: Peer, round: u32, cpu_seconds: f64) -> Entry {
        let done = Done { operations: 100_000, p50_us: Some(800.4), p99_us: Some(1200.0) };
        Entry {
            peer,
            round,
            sample: Sample {
                workload: Workload::H1,
                done,
                cpu_seconds,
                others_seconds: round.into(),
                wall_seconds: 2.0,
            },
        }
    }

    fn report() -> Report {
        // The machine gets slower, and both peers with it: the ratio is 1.5 in every round but one.
        let entries = vec![
            entry(Peer::Edd, 0, 1.5),
            entry(Peer::Haproxy, 0, 1.0),
            entry(Peer::Edd, 1, 3.0),
            entry(Peer::Haproxy, 1, 2.0),
            entry(Peer::Edd, 2, 4.0),
            entry(Peer::Haproxy, 2, 4.0),
        ];
        Report {
            peers: vec![Peer::Edd, Peer::Haproxy],
            versions: vec!["edd 0.1.0".to_owned(), "haproxy 2.6 \"x\"".to_owned()],
            entries,
            memory: vec![Memory { peer: Peer::Edd, resident_bytes: [7_000_000, 66_400_000, 94_000_000] }],
            idle_connections: 2_000,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_row_has_medians_paired_ratios_and_dashes_for_what_was_not_measured() {
        let text = report().markdown();
        assert!(text.contains("| edd | 3.00 (1.50) | 800/1200 | – | – | – | – / – | 7 → 66 → 94 |\n"), "{text}");
        assert!(text.contains("| haproxy | 2.00 (1.00) | 800/1200 | – | – | – | – / – | – |\n"), "{text}");
        assert!(text.contains("edd 150 %, –, –; haproxy 100 %, –, –."), "{text}");
        assert!(text.contains("Others used 50 % of the proxy's core in the median run, 100 % in the worst"), "{text}");
    }

    #[test]
    fn json_has_every_run_and_no_stray_quote() {
        let json = report().json();
        assert_eq!(json.matches("\"round\"").count(), 6);
        assert!(json.contains(
            "\"peer\": \"edd\", \"workload\": \"h1\", \"round\": 1, \"operations\": 100000, \"cpu_seconds\": 3.00"
        ));
        assert!(json.contains("\"haproxy 2.6 ?x?\""), "{json}");
    }
}
