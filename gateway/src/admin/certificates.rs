//! What operators see of the certificates: a line of `/readyz?verbose` and series of `/metrics`.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};

use crate::certs::{CertSource, CertState, CertStore};
use crate::health::{Check, CheckState};

pub fn check(certs: &CertStore) -> Check {
    let list = certs.list();
    let bad: Vec<String> = list
        .iter()
        .filter(|info| !matches!(info.state, CertState::Ok))
        .map(|info| format!("{}: {}", info.names.join(", "), info.message.as_deref().unwrap_or("not usable")))
        .collect();
    if bad.is_empty() {
        return Check { name: "certificates".into(), state: CheckState::Ok, detail: format!("{} in use", list.len()) };
    }
    Check { name: "certificates".into(), state: CheckState::Degraded, detail: bad.join("; ") }
}

/// Made anew for each scrape, so that no series outlives its certificate.
pub fn metrics(certs: &CertStore) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let not_after = Opts::new("edd_tls_certificate_not_after_seconds", "When a certificate expires, in Unix time.");
    let not_after = GaugeVec::new(not_after, &["name"])?;
    for info in certs.list() {
        // Clients choose the names of local leaves: they are no labels.
        if info.source != CertSource::LocalLeaf
            && let (Some(name), Some(time)) = (info.names.first(), info.not_after)
        {
            not_after.with_label_values(&[name]).set(time.unix_timestamp() as f64);
        }
    }
    let reloads = Opts::new("edd_tls_certificate_reloads_total", "Changes of certificate files taken up, by result.");
    let reloads = IntCounterVec::new(reloads, &["result"])?;
    let report = certs.reports().borrow().clone();
    reloads.with_label_values(&["success"]).inc_by(report.good_reloads_total);
    reloads.with_label_values(&["failure"]).inc_by(report.bad_reloads_total);
    // A family without series, as where there are no certificates, is not to be written.
    let families = not_after.collect().into_iter().chain(reloads.collect());
    Ok(families.filter(|family| !family.get_metric().is_empty()).collect())
}
