//! Reloading when files change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};

use super::files::visible_entries;
use super::{CertStore, CertsError};

/// How often everything is read again without an event: network file systems send none, and neither does a file
/// elsewhere to which a symlink leads.
const POLL: Duration = Duration::from_secs(30);
/// A burst of events is over when there was none for this long.
const QUIET: Duration = Duration::from_millis(100);
/// A burst that does not end is acted upon after this long.
const LONGEST_BURST: Duration = Duration::from_secs(1);

impl CertStore {
    /// Reloads when the files change, until `shutdown` turns true or its sender is gone.
    pub async fn watch(self, shutdown: watch::Receiver<bool>) {
        self.watch_every(POLL, shutdown).await;
    }

    /// As [`CertStore::watch`], with the time between two polls given.
    pub(super) async fn watch_every(self, poll: Duration, mut shutdown: watch::Receiver<bool>) {
        let changed = Arc::new(Notify::new());
        let mut folders = self.certs_dir().map(|dir| Folders::new(dir, changed.clone()));
        let mut polls = interval_at(Instant::now() + poll, poll);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let store = self.clone();
            let work = tokio::task::spawn_blocking(move || {
                // Watching before reading: what changes in between is read twice, never missed.
                folders.iter_mut().for_each(Folders::follow);
                store.reload();
                folders
            });
            folders = match work.await {
                Ok(folders) => folders,
                Err(error) => {
                    tracing::error!("certificates are no longer watched, restart to load changed ones: {error}");
                    return;
                }
            };
            tokio::select! {
                () = asked(&mut shutdown) => return,
                _ = polls.tick() => {}
                () = changed.notified() => settle(&changed).await,
            }
        }
    }
}

/// Waits until the signal turns true. When its sender is gone, so is whoever could ask for more.
async fn asked(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Waits for the end of a burst of events.
async fn settle(changed: &Notify) {
    let end = Instant::now() + LONGEST_BURST;
    while let Ok(Ok(())) = timeout_at(end, timeout(QUIET, changed.notified())).await {}
}

/// The folders that the operating system tells us about.
struct Folders {
    dir: PathBuf,
    /// None where events are not to be had; polling remains.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn new(dir: &Path, changed: Arc<Notify>) -> Self {
        let prefix = dir.to_owned();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event, &prefix)) {
                changed.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!("`{}` is polled every {POLL:?}, for it cannot be watched: {error}", dir.display());
        });
        Self { dir: dir.to_owned(), watcher: watcher.ok(), watched: BTreeSet::new() }
    }

    /// Watches the folders that there are now. Their paths are watched anew each time: behind a symlink, or after a
    /// folder was replaced, the same path is another folder.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        // The parent shows the directory itself appear, or being replaced.
        let wanted: BTreeSet<_> = self.dir.parent().map(Path::to_owned).into_iter().chain(folders(&self.dir)).collect();
        for gone in self.watched.difference(&wanted) {
            // It fails where the folder, and the watch with it, is gone already.
            let _ = watcher.unwatch(gone);
        }
        self.watched =
            wanted.into_iter().filter(|path| watcher.watch(path, RecursiveMode::NonRecursive).is_ok()).collect();
    }
}

/// The directory and the folders in it; none when it is not there.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries: Result<Vec<_>, CertsError> = visible_entries(dir);
    let Ok(entries) = entries else { return Vec::new() };
    entries.into_iter().filter(|path| path.is_dir()).chain([dir.to_owned()]).collect()
}

/// Whether an event may mean new content. Our own reading causes events too.
fn is_change(event: &Event, dir: &Path) -> bool {
    let kind = match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    kind && (event.need_rescan() || event.paths.iter().any(|path| path.starts_with(dir)))
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Flag, ModifyKind};

    use super::*;

    #[test]
    fn reading_is_no_change_and_neither_is_what_lies_elsewhere() {
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let (created, renamed) = (EventKind::Create(CreateKind::File), EventKind::Modify(ModifyKind::Any));
        for (kind, path, expected) in [
            (read, "/etc/certs/site.crt", false),
            (written, "/etc/certs/site.crt", true),
            (created, "/etc/certs/site/tls.key", true),
            (renamed, "/etc/certs", true),
            (renamed, "/etc/certs2/site.crt", false),
            (created, "/etc/other", false),
        ] {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(is_change(&event, Path::new("/etc/certs")), expected, "{event:?}");
        }
        // Events were lost, so anything may have changed.
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(is_change(&lost, Path::new("/etc/certs")));
    }
}
