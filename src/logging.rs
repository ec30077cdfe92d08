//! What happened, on stderr: for people on a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The engine reports each failed request as an error; the access log does so with a reason.
const DEFAULT: &str = "info,pingora_proxy=off,pingora_core=warn";

/// Checks a filter.
pub fn parse_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Starts logging what `filter` lets through; an empty one is none.
pub fn start(filter: Option<&str>) {
    let filter = EnvFilter::new(filter.filter(|text| !text.is_empty()).unwrap_or(DEFAULT));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with_ansi(colour).with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
