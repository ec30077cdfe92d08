//! Live requests, one JSON line each, filtered here so that a busy gateway sends little.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::table::normalize_host;

#[derive(Deserialize)]
pub struct TapQuery {
    host: Option<String>,
    status: Option<String>,
}

/// Which requests to show.
#[derive(Clone, Debug, Default)]
struct Filter {
    host: Option<String>,
    status: Option<std::ops::RangeInclusive<u64>>,
}

impl Filter {
    fn new(query: TapQuery) -> Result<Self, String> {
        let host = match query.host {
            None => None,
            Some(host) => Some(normalize_host(&host).map_err(|_| format!("`{host}` is no host"))?.into_owned()),
        };
        let status = query.status.as_deref().map(parse_status).transpose()?;
        Ok(Self { host, status })
    }

    fn takes(&self, line: &str) -> bool {
        let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { return false };
        let host = self.host.as_deref().is_none_or(|host| record["host"] == host);
        let status =
            self.status.as_ref().is_none_or(|range| record["status"].as_u64().is_some_and(|s| range.contains(&s)));
        host && status
    }
}

/// `404`, or a class such as `5xx`.
fn parse_status(text: &str) -> Result<std::ops::RangeInclusive<u64>, String> {
    if let Some(class @ 1..=5) = text.strip_suffix("xx").and_then(|class| class.parse::<u64>().ok()) {
        return Ok(class * 100..=class * 100 + 99);
    }
    match text.parse::<u64>() {
        Ok(code @ 100..=999) => Ok(code..=code),
        _ => Err(format!("`{text}` is no status; write it as 404 or 5xx")),
    }
}

pub async fn tap(
    State(admin): State<Admin>,
    query: Result<Query<TapQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let filter = Filter::new(query?.0).map_err(|what| Problem::bad_request(&what))?;
    let lines = stream::unfold((admin.access_log.tap(), filter), |(mut records, filter)| async move {
        loop {
            let line = match records.recv().await {
                Ok(line) if filter.takes(&line) => format!("{line}\n"),
                Ok(_) => continue,
                Err(RecvError::Lagged(missed)) => format!("{{\"missed\":{missed}}}\n"),
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok::<_, Infallible>(Bytes::from(line)), (records, filter)));
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_host_and_status_class() {
        let filter = |host: Option<&str>, status: Option<&str>| {
            Filter::new(TapQuery { host: host.map(str::to_owned), status: status.map(str::to_owned) })
        };
        let line = r#"{"host":"a.example","status":502}"#;
        assert!(filter(None, None).unwrap().takes(line));
        assert!(filter(Some("A.example"), Some("5xx")).unwrap().takes(line));
        assert!(filter(None, Some("502")).unwrap().takes(line));
        assert!(!filter(None, Some("4xx")).unwrap().takes(line));
        assert!(!filter(Some("b"), None).unwrap().takes(line));
        for bad in ["6xx", "0xx", "abc", "99", "+1xx1"] {
            assert!(filter(None, Some(bad)).is_err(), "{bad}");
        }
    }
}
