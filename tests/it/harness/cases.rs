//! A table of cases, of which every one is tried and every failure told.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs the cases of one table. End it with [`Cases::finish`].
#[derive(Default)]
#[must_use = "the failures are told by `finish`"]
pub struct Cases {
    failed: Vec<String>,
}

impl Cases {
    /// Runs one case; what it fails with is printed, and the next case goes on.
    pub async fn case(&mut self, name: &str, case: impl Future<Output = ()>) {
        // A case that fails leaves behind at most a connection of its own.
        if AssertUnwindSafe(case).catch_unwind().await.is_err() {
            let name: String = name.chars().take(300).collect();
            eprintln!("--- this was case {name:?}");
            self.failed.push(name);
        }
    }

    #[track_caller]
    pub fn finish(self) {
        assert!(self.failed.is_empty(), "{} cases failed: {:#?}", self.failed.len(), self.failed);
    }
}
