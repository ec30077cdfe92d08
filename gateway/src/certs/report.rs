//! What became of reading the files again.

use std::path::PathBuf;

use serde::Serialize;

/// What reading all files again came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// Files whose content is new and in service.
    pub loaded: Vec<PathBuf>,
    /// Files that are gone, and out of service.
    pub removed: Vec<PathBuf>,
    /// What cannot be used, as long as it cannot.
    pub problems: Vec<Problem>,
    /// What is served and yet needs a look: expired or about to be.
    pub warnings: Vec<Problem>,
    /// Reloads so far that found something changed, and nothing bad.
    pub good_reloads_total: u64,
    /// Reloads so far that found something changed, and something bad. A file that stays bad counts once.
    pub bad_reloads_total: u64,
}

/// A file, and what is the matter with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub path: PathBuf,
    /// What is wrong and what to do about it.
    pub message: String,
    /// Whether a version of it is in service all the same.
    pub in_service: bool,
}

impl ReloadReport {
    /// Whether any file's content came into service or went out of it.
    pub fn changes_service(&self) -> bool {
        !self.loaded.is_empty() || !self.removed.is_empty()
    }

    /// Carries the totals on from the report before.
    pub(super) fn count(&mut self, last: &Self) {
        self.good_reloads_total = last.good_reloads_total;
        self.bad_reloads_total = last.bad_reloads_total;
        if self.changes_service() || self.problems != last.problems {
            if self.problems.is_empty() {
                self.good_reloads_total += 1;
            } else {
                self.bad_reloads_total += 1;
            }
        }
    }

    /// Logs what was not in the report before.
    pub(super) fn log(&self, last: &Self) {
        for path in &self.loaded {
            tracing::info!("`{}` is in service", path.display());
        }
        for path in &self.removed {
            tracing::info!("`{}` is gone and out of service", path.display());
        }
        for problem in self.problems.iter().filter(|problem| !last.problems.contains(problem)) {
            let effect = if problem.in_service { "the last good version stays in service" } else { "not in service" };
            tracing::error!("{} ({effect})", problem.message);
        }
        for warning in self.warnings.iter().filter(|warning| !last.warnings.contains(warning)) {
            tracing::warn!("`{}` {}", warning.path.display(), warning.message);
        }
    }
}
