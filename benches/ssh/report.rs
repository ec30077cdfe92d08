//! Medians and ratios, as a table.

use std::time::Duration;

use crate::measure::{Finding, Round};
use crate::options::Options;
use crate::way::Way;

/// The ratios are to `ssh -J`, round by round.
pub fn markdown(findings: &[Finding], options: &Options) -> String {
    let mut text = format!(
        "{} MiB each way, {}, {} rounds, {} logins; in brackets the ratio to `ssh -J`, median of the ratio per round\n\n\
         | Way | up, MiB/s | down, MiB/s | CPU between, s per GiB | login p50 / p99, ms | memory between, KiB per \
         connection ({} held) |\n|---|---|---|---|---|---|\n",
        options.transfer_mib, options.cipher, options.rounds, options.logins, options.sessions
    );
    let jump = findings.iter().find(|finding| finding.way == Way::Jump);
    for finding in findings {
        let figure = |pick: fn(&Round) -> f64| {
            let own = median(finding.rounds.iter().map(pick).collect());
            let rounds = jump.map(|jump| jump.rounds.as_slice()).unwrap_or_default();
            let ratio = median(finding.rounds.iter().zip(rounds).map(|(own, jump)| pick(own) / pick(jump)).collect());
            (own, ratio)
        };
        let rate = |(own, ratio): (f64, f64)| format!("{own:.0} ({ratio:.2})");
        let cpu = match (finding.way, figure(|round| round.cpu_s_per_gib)) {
            (Way::Direct, _) => "–".to_owned(),
            (_, (own, ratio)) => format!("{own:.2} ({ratio:.2})"),
        };
        let memory = finding.session_bytes.map_or_else(|| "–".to_owned(), |bytes| (bytes / 1024).to_string());
        text += &format!(
            "| {} | {} | {} | {cpu} | {:.0} / {:.0} | {memory} |\n",
            finding.way.title(),
            rate(figure(|round| round.up_mib_per_s)),
            rate(figure(|round| round.down_mib_per_s)),
            percentile(&finding.logins, 50),
            percentile(&finding.logins, 99),
        );
    }
    text
}

/// In milliseconds; `samples` are in ascending order.
fn percentile(samples: &[Duration], percent: usize) -> f64 {
    samples[(samples.len() * percent / 100).min(samples.len() - 1)].as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
