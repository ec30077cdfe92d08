//! Medians and ratios, as a table.

use crate::measure::{Finding, Round};
use crate::options::Options;

const MIB: u64 = 1 << 20;

/// The ratios are to nginx on the same way, round by round.
pub fn markdown(findings: &[Finding], options: &Options) -> String {
    let mut text = format!(
        "{} files of 1 KiB over {} connections, one of {} MiB, {} rounds; in brackets the ratio to nginx on the same \
         way, median of the ratio per round\n\n\
         | Way | 1 KiB up, files/s | 1 KiB down, files/s | large up, MiB/s | large down, MiB/s |\n|---|---|---|---|---|\n",
        options.files, options.connections, options.large_mib, options.rounds
    );
    for finding in findings {
        let peer = findings.iter().find(|other| other.way == finding.way.peer());
        let cell = |pick: fn(&Round) -> f64| {
            let own = median(finding.rounds.iter().map(pick).collect());
            let rounds = peer.map(|peer| peer.rounds.as_slice()).unwrap_or_default();
            let ratio = median(finding.rounds.iter().zip(rounds).map(|(own, peer)| pick(own) / pick(peer)).collect());
            format!("{own:.0} ({ratio:.2})")
        };
        let cells = [
            cell(|round| round.small_up),
            cell(|round| round.small_down),
            cell(|round| round.large_up),
            cell(|round| round.large_down),
        ];
        text += &format!("| {} | {} |\n", finding.way.title(), cells.join(" | "));
    }
    if let Some([share, gateway]) = findings.iter().find_map(|finding| finding.memory) {
        let told = |(before, most): (u64, u64)| format!("{} MiB before, {} MiB at most", before / MIB, most / MIB);
        let mib = options.memory_mib.unwrap_or_default();
        text += &format!(
            "\nDuring an upload of {mib} MiB the share held {}, the gateway {}.\n",
            told(share),
            told(gateway)
        );
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
