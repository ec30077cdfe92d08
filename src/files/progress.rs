//! A bar for people who watch: on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const KNOWN: &str = "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN: &str = "{wide_msg} {bytes} {bytes_per_sec}";
/// How often it moves by itself.
const TICK: Duration = Duration::from_millis(200);

/// How far all of a command's transfers are. Clones are the same.
#[derive(Clone, Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` bytes; none: nobody knows how many.
    pub fn new(total: Option<u64>) -> Self {
        let (bar, template) = match total {
            Some(total) => (ProgressBar::new(total), KNOWN),
            None => (ProgressBar::new_spinner(), UNKNOWN),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    pub fn begin(&self, what: String) {
        self.0.set_message(what);
    }

    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Takes back what turned out not to have arrived.
    pub fn take(&self, bytes: u64) {
        self.0.dec(bytes);
    }

    /// Says something above the bar, or alone where there is none.
    pub fn say(&self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
