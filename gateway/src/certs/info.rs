//! A certificate as it is shown to people and metrics.

use std::path::PathBuf;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::Facts;

/// A certificate is `expiring` when less than one part in this many of its lifetime is left. A share, not a number
/// of days: ACME renews at a third, so a certificate at a fifth has missed its renewal, be it good for a week or a year.
const EXPIRING_SHARE: i32 = 5;

/// One certificate of the store.
#[derive(Clone, Debug, Serialize)]
pub struct CertInfo {
    /// The names and addresses it is valid for; empty when it could not be read.
    pub names: Vec<String>,
    pub issuer: Option<String>,
    pub source: CertSource,
    #[serde(serialize_with = "rfc3339")]
    pub not_before: Option<OffsetDateTime>,
    #[serde(serialize_with = "rfc3339")]
    pub not_after: Option<OffsetDateTime>,
    pub key_type: Option<String>,
    /// SHA-256 of the certificate in lower-case hex.
    pub sha256: Option<String>,
    pub state: CertState,
    /// What is wrong and what to do about it, where something is.
    pub message: Option<String>,
    /// Whether clients get this certificate. A file that went bad leaves its last good version in service.
    pub in_service: bool,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "path")]
pub enum CertSource {
    /// The operator's file.
    File(PathBuf),
    /// The local authority's own certificate.
    LocalRoot(PathBuf),
    /// Signed by the local authority when a client asked for it. Clients choose these names: they are bounded in
    /// number, but they are no labels for a metric.
    LocalLeaf,
}

/// How a certificate is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertState {
    Ok,
    /// Less than a fifth of its lifetime is left.
    Expiring,
    /// Past its end; served all the same, so that clients can tell what is wrong.
    Expired,
    NotYetValid,
    /// Its files are no good as they are now.
    Error,
}

impl CertInfo {
    /// Describes a certificate that clients get.
    pub(super) fn of(facts: &Facts, source: CertSource, now: OffsetDateTime) -> Self {
        let (state, message) = validity(facts, now);
        Self {
            names: facts.names.iter().map(ToString::to_string).collect(),
            issuer: Some(facts.issuer.clone()),
            source,
            not_before: Some(facts.not_before),
            not_after: Some(facts.not_after),
            key_type: Some(facts.key_type.clone()),
            sha256: Some(facts.sha256.clone()),
            state,
            message,
            in_service: true,
        }
    }

    /// Describes a pair of files that never was any good.
    pub(super) fn unusable(source: CertSource, message: &str) -> Self {
        Self {
            names: Vec::new(),
            issuer: None,
            source,
            not_before: None,
            not_after: None,
            key_type: None,
            sha256: None,
            state: CertState::Error,
            message: Some(message.to_owned()),
            in_service: false,
        }
    }
}

/// The state that follows from the validity period, with a message where it is not `Ok`.
pub(super) fn validity(facts: &Facts, now: OffsetDateTime) -> (CertState, Option<String>) {
    let left = facts.not_after - now;
    if now < facts.not_before {
        let message = format!("not valid before {}; check this machine's clock", text(facts.not_before));
        (CertState::NotYetValid, Some(message))
    } else if left.is_negative() {
        let message =
            format!("expired on {}; clients refuse it, put a renewed one in its place", text(facts.not_after));
        (CertState::Expired, Some(message))
    } else if left < (facts.not_after - facts.not_before) / EXPIRING_SHARE {
        (CertState::Expiring, Some(format!("expires on {}; renew it", text(facts.not_after))))
    } else {
        (CertState::Ok, None)
    }
}

fn text(time: OffsetDateTime) -> String {
    // Only a year beyond 9999 has no RFC 3339 form, and X.509 has no such year.
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

fn rfc3339<S: Serializer>(time: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(text).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    fn facts(days: i64) -> Facts {
        let not_before = datetime!(2026-01-01 00:00 UTC);
        Facts {
            names: Vec::new(),
            issuer: "CN=test".to_owned(),
            not_before,
            not_after: not_before + Duration::days(days),
            key_type: "ECDSA P-256".to_owned(),
            sha256: "00".to_owned(),
        }
    }

    #[test]
    fn state_follows_the_share_of_lifetime_left() {
        let start = datetime!(2026-01-01 00:00 UTC);
        for (lifetime_days, age_hours, state) in [
            (10, -1, CertState::NotYetValid),
            (10, 0, CertState::Ok),
            (10, 8 * 24, CertState::Ok),
            (10, 8 * 24 + 1, CertState::Expiring),
            (10, 10 * 24 + 1, CertState::Expired),
            // Six days left of a year is late, of a week it is early.
            (365, 359 * 24, CertState::Expiring),
            (7, 24, CertState::Ok),
        ] {
            let info = CertInfo::of(
                &facts(lifetime_days),
                CertSource::File("site.crt".into()),
                start + Duration::hours(age_hours),
            );
            assert_eq!(info.state, state, "{age_hours} hours into {lifetime_days} days");
            assert_eq!(info.message.is_some(), state != CertState::Ok);
        }
    }

    #[test]
    fn times_and_sources_have_a_stable_json_form() {
        let info =
            CertInfo::of(&facts(10), CertSource::File("/certs/site.crt".into()), datetime!(2026-01-02 00:00 UTC));
        let json = serde_json::to_value(info).unwrap();
        assert_eq!(json["not_after"], "2026-01-11T00:00:00Z");
        assert_eq!(json["source"], serde_json::json!({"kind": "file", "path": "/certs/site.crt"}));
        assert_eq!(json["state"], "ok");
    }
}
