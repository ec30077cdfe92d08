//! Notices that the routes file says something else, however it came to say so.
//!
//! Editors write in place or rename a new file over the old one; Kubernetes swaps a symlink two
//! steps away (`routes.yaml -> ..data/routes.yaml`, `..data -> ..2026_…`). So every directory that
//! holds a step of the way to the file is watched, not the file, and what counts is the content
//! alone. File systems that send no events (NFS) are polled.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::file::{self, LoadError};
use super::links;

/// How often a file is compared when no event comes.
pub const DEFAULT_POLL: Duration = Duration::from_secs(10);
/// Shortest time between two polls.
const MIN_POLL: Duration = Duration::from_millis(5);
/// A burst of events is over when none has come for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst that does not end is read at this age anyway.
const MAX_BURST: Duration = Duration::from_millis(500);

/// Follows the content of the routes file. The thread that receives events ends when it is dropped.
pub struct RoutesWatcher {
    path: PathBuf,
    poll: Duration,
    next_poll: Instant,
    seen: u64,
    /// An event came and its content is not compared yet.
    pending: bool,
    events: Arc<Events>,
    watches: Arc<Mutex<Watches>>,
}

/// What the thread that receives events shares with the task that waits for them.
#[derive(Default)]
struct Events {
    /// The names on the way to the file: links, the file itself, and their directories.
    names: ArcSwap<HashSet<PathBuf>>,
    wake: Notify,
}

/// The directories being watched.
struct Watches {
    watcher: RecommendedWatcher,
    directories: HashSet<PathBuf>,
}

impl RoutesWatcher {
    /// Watches the file at `path`, whose content the caller serves already is `served`; it need not
    /// exist. Besides events, the content is compared every `poll`, such as [`DEFAULT_POLL`].
    ///
    /// # Errors
    /// When the operating system gives no watcher, such as for lack of inotify instances.
    pub fn new(path: impl Into<PathBuf>, served: &str, poll: Duration) -> notify::Result<Self> {
        // Events carry absolute names.
        let path = std::path::absolute(path.into())?;
        let events = Arc::new(Events::default());
        let receiver = Arc::clone(&events);
        let watcher = notify::recommended_watcher(move |event| receiver.receive(event))?;
        let watches = Arc::new(Mutex::new(Watches { watcher, directories: HashSet::new() }));
        let seen = digest(&Ok(served.to_owned()));
        let poll = poll.max(MIN_POLL);
        // The file may have changed since it was read, so the first wait begins with a comparison.
        Ok(Self { path, poll, next_poll: Instant::now() + poll, seen, pending: true, events, watches })
    }

    /// Waits until the file says something else than before, and returns it; an error once, when it
    /// cannot be read any more. Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Result<String, LoadError> {
        loop {
            if !self.pending {
                tokio::select! {
                    () = self.events.wake.notified() => {
                        self.pending = true;
                        self.settle().await;
                    }
                    () = tokio::time::sleep_until(self.next_poll) => self.pending = true,
                }
            }
            if let Some(content) = self.compare().await {
                return content;
            }
        }
    }

    /// Lets a burst of events pass: a file is truncated, written and closed in several.
    async fn settle(&self) {
        let burst = async { while tokio::time::timeout(QUIET, self.events.wake.notified()).await.is_ok() {} };
        // Either way the content is read now; later events wake again.
        let _ = tokio::time::timeout(MAX_BURST, burst).await;
    }

    /// Reads the file; none if it says what it said before.
    async fn compare(&mut self) -> Option<Result<String, LoadError>> {
        let (path, events, watches) = (self.path.clone(), Arc::clone(&self.events), Arc::clone(&self.watches));
        let read = tokio::task::spawn_blocking(move || {
            // First the watches, then the content: a change in between sends an event.
            watches.lock().unwrap_or_else(PoisonError::into_inner).follow(&path, &events);
            file::read(&path)
        });
        let content = match read.await {
            Ok(content) => content,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down; the caller's task ends with it.
            Err(_) => std::future::pending().await,
        };
        self.pending = false;
        self.next_poll = Instant::now() + self.poll;
        let seen = digest(&content);
        (seen != std::mem::replace(&mut self.seen, seen)).then_some(content)
    }
}

impl Events {
    fn receive(&self, event: notify::Result<notify::Event>) {
        let relevant = match event {
            // The queue overflowed, or a directory is gone: what was missed is unknown.
            Err(_) => true,
            Ok(event) if event.need_rescan() => true,
            Ok(event) => {
                // Reading is reported too; waking for it would never end.
                let read =
                    matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
                let names = self.names.load();
                !read && event.paths.iter().any(|path| names.contains(path))
            }
        };
        if relevant {
            self.wake.notify_one();
        }
    }
}

impl Watches {
    /// Watches every directory on the present way to the file, and no other.
    fn follow(&mut self, path: &Path, events: &Events) {
        let steps = links::steps(path);
        let wanted: HashSet<PathBuf> = steps.iter().filter_map(|step| step.parent().map(Path::to_owned)).collect();
        let names: HashSet<PathBuf> = steps.into_iter().chain(wanted.iter().cloned()).collect();
        if names != **events.names.load() {
            events.names.store(Arc::new(names));
        }
        for directory in self.directories.difference(&wanted) {
            // A directory that is gone has lost its watch already.
            let _ = self.watcher.unwatch(directory);
        }
        self.directories.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            // Again also for those that are watched: one may have been replaced by another of the
            // same name. One that cannot be watched is left to the poll.
            if self.watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                self.directories.insert(directory);
            }
        }
    }
}

fn digest(content: &Result<String, LoadError>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match content {
        Ok(text) => (true, text).hash(&mut hasher),
        Err(error) => (false, error.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Longest wait for something that must happen.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// A poll that never comes within a test: what is seen was seen by events.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A directory of its own, removed when the test ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("edd-watch-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("the temporary directory takes directories");
            Self(path)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.at(name);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("the directory can be made");
            fs::write(&path, text).expect("the directory takes files");
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Events {
        /// Whether a wake-up waits.
        fn take(&self) -> bool {
            std::pin::pin!(self.wake.notified()).enable()
        }
    }

    /// A watcher that serves "one" and has compared it.
    async fn watch(path: PathBuf, poll: Duration) -> RoutesWatcher {
        let mut watcher = RoutesWatcher::new(path, "one", poll).expect("the system gives a watcher");
        assert!(watcher.compare().await.is_none(), "the file says `one`");
        watcher
    }

    async fn next(watcher: &mut RoutesWatcher) -> Result<String, LoadError> {
        tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("the change is noticed")
    }

    async fn expect(watcher: &mut RoutesWatcher, text: &str) {
        assert_eq!(next(watcher).await.expect("the file can be read"), text);
    }

    #[tokio::test]
    async fn sees_writes_in_place_and_renames_over_it() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "one");
        let mut watcher = watch(path.clone(), NEVER).await;
        for (written, renamed) in [("two", "three"), ("", "four")] {
            directory.write("routes.yaml", written);
            expect(&mut watcher, written).await;
            fs::rename(directory.write(".routes.yaml.swp", renamed), &path).expect("a rename within a directory");
            expect(&mut watcher, renamed).await;
        }
    }

    /// A ConfigMap mount: a new directory, then `..data` renamed over, then the old directory removed.
    #[tokio::test]
    async fn sees_the_swap_of_a_config_map() {
        let directory = Directory::new();
        directory.write("..1/routes.yaml", "one");
        symlink("..1", directory.at("..data")).expect("a symlink");
        symlink("..data/routes.yaml", directory.at("routes.yaml")).expect("a symlink");
        let mut watcher = watch(directory.at("routes.yaml"), NEVER).await;
        for (old, new, text) in [("..1", "..2", "two"), ("..2", "..3", "three")] {
            directory.write(&format!("{new}/routes.yaml"), text);
            symlink(new, directory.at("..data_tmp")).expect("a symlink");
            fs::rename(directory.at("..data_tmp"), directory.at("..data")).expect("a rename within a directory");
            fs::remove_dir_all(directory.at(old)).expect("the old directory is there");
            expect(&mut watcher, text).await;
        }
    }

    #[tokio::test]
    async fn follows_a_link_out_of_the_directory() {
        let directory = Directory::new();
        let real = directory.write("releases/1/routes.yaml", "one");
        directory.write("releases/2/routes.yaml", "three");
        fs::create_dir(directory.at("etc")).expect("a directory");
        symlink(directory.at("releases/1"), directory.at("current")).expect("a symlink");
        symlink("../current/routes.yaml", directory.at("etc/routes.yaml")).expect("a symlink");
        let mut watcher = watch(directory.at("etc/routes.yaml"), NEVER).await;
        fs::write(real, "two").expect("the file is there");
        expect(&mut watcher, "two").await;
        symlink(directory.at("releases/2"), directory.at("next")).expect("a symlink");
        fs::rename(directory.at("next"), directory.at("current")).expect("a rename within a directory");
        expect(&mut watcher, "three").await;
        directory.write("releases/2/routes.yaml", "four");
        expect(&mut watcher, "four").await;
    }

    #[tokio::test]
    async fn reports_a_loss_once_and_the_return() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "one");
        // Polled often, so that a second report of the same loss would come soon.
        let mut watcher = watch(path.clone(), Duration::from_millis(5)).await;
        fs::remove_file(&path).expect("the file is there");
        assert!(matches!(next(&mut watcher).await, Err(LoadError::Io { .. })));
        for _ in 0..5 {
            assert!(watcher.compare().await.is_none(), "the loss is told once");
        }
        directory.write("routes.yaml", "one");
        expect(&mut watcher, "one").await;
    }

    #[tokio::test]
    async fn sees_a_missing_link_target_appear() {
        let directory = Directory::new();
        symlink("..data/routes.yaml", directory.at("routes.yaml")).expect("a symlink");
        let mut watcher = RoutesWatcher::new(directory.at("routes.yaml"), "one", NEVER).expect("a watcher");
        assert!(next(&mut watcher).await.is_err());
        directory.write("..1/routes.yaml", "two");
        symlink("..1", directory.at("..data")).expect("a symlink");
        expect(&mut watcher, "two").await;
    }

    #[tokio::test]
    async fn polls_where_no_events_come() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "one");
        let mut watcher = watch(path, Duration::from_millis(5)).await;
        // As on NFS: no event arrives.
        let deaf = notify::recommended_watcher(|_| {}).expect("a watcher");
        watcher.watches.lock().expect("no test thread panicked").watcher = deaf;
        directory.write("routes.yaml", "two");
        expect(&mut watcher, "two").await;
    }

    #[tokio::test]
    async fn says_nothing_when_the_content_is_the_same() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "one");
        let mut watcher = watch(path.clone(), NEVER).await;
        fs::rename(directory.write("new", "one"), &path).expect("a rename within a directory");
        // The event arrives, and the comparison finds nothing.
        tokio::time::timeout(PATIENCE, watcher.events.wake.notified()).await.expect("the rename is noticed");
        assert!(watcher.compare().await.is_none());
    }

    #[test]
    fn is_not_woken_by_reading_or_by_neighbours() {
        use notify::event::{CreateKind, DataChange, Flag, ModifyKind};
        let events = Events::default();
        events.names.store(Arc::new(HashSet::from([PathBuf::from("/etc/routes.yaml")])));
        let check = |kind: EventKind, path: &str, want: bool| {
            events.receive(Ok(notify::Event::new(kind).add_path(path.into())));
            assert_eq!(events.take(), want, "{kind:?} {path}");
        };
        check(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/etc/routes.yaml", true);
        check(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/etc/routes.yaml", true);
        check(EventKind::Create(CreateKind::File), "/etc/routes.yaml", true);
        check(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/etc/routes.yaml", false);
        check(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/routes.yaml", false);
        check(EventKind::Create(CreateKind::File), "/etc/routes.yaml~", false);
        events.receive(Ok(notify::Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(events.take());
        events.receive(Err(notify::Error::generic("overflow")));
        assert!(events.take());
    }

    #[tokio::test]
    async fn notices_what_changed_before_it_watched() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "two");
        let mut watcher = RoutesWatcher::new(path, "one", NEVER).expect("a watcher");
        expect(&mut watcher, "two").await;
    }

    #[tokio::test]
    async fn loses_nothing_when_it_is_interrupted() {
        let directory = Directory::new();
        let path = directory.write("routes.yaml", "one");
        let mut watcher = watch(path, NEVER).await;
        directory.write("routes.yaml", "two");
        // Dropped again and again while it settles and reads.
        let interrupted = async {
            loop {
                if let Ok(content) = tokio::time::timeout(Duration::from_millis(20), watcher.changed()).await {
                    return content;
                }
            }
        };
        let content = tokio::time::timeout(PATIENCE, interrupted).await.expect("the change is noticed");
        assert_eq!(content.expect("the file can be read"), "two");
    }

    #[tokio::test]
    async fn ends_its_thread_when_dropped() {
        let directory = Directory::new();
        let watcher = watch(directory.write("routes.yaml", "one"), NEVER).await;
        // The thread holds the callback, and the callback the other end of this.
        let thread = Arc::downgrade(&watcher.events);
        drop(watcher);
        let gone = async {
            while thread.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("the thread ends");
    }
}
