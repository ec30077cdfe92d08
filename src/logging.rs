//! What happened, on stderr: for people on a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging at the level of `RUST_LOG`.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        // The engine reports each failed request as an error; the access log does so with a reason.
        EnvFilter::new("info,pingora_proxy=off,pingora_core=warn")
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        log.with_ansi(colour).with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}
