//! A list that one side appends to and another waits on.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Longest wait for any one thing, generous because machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `future`, and fails the test when it takes longer than [`PATIENCE`].
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(done) => done,
            Err(_) => panic!("{at}: waited {PATIENCE:?} for {what}"),
        }
    }
}

/// Things that happened, in order. Clones share one list; threads and tasks may both write.
pub struct Record<T> {
    items: Arc<Mutex<Vec<T>>>,
    changed: watch::Sender<()>,
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), changed: self.changed.clone() }
    }
}

impl<T> Default for Record<T> {
    fn default() -> Self {
        Self { items: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl<T: Clone + Debug> Record<T> {
    fn items(&self) -> MutexGuard<'_, Vec<T>> {
        // A test that panicked while it looked at the list has left it as it was.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, item: T) {
        self.items().push(item);
        self.changed.send_replace(());
    }

    /// Changes every item that `edit` likes to change.
    pub fn edit(&self, edit: impl FnMut(&mut T)) {
        self.items().iter_mut().for_each(edit);
        self.changed.send_replace(());
    }

    pub fn all(&self) -> Vec<T> {
        self.items().clone()
    }

    /// Empties the list, for the next case of a table.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.items())
    }

    /// Waits until `find` returns something, and fails the test with the end of the list otherwise.
    #[track_caller]
    pub fn wait<R>(&self, what: impl Into<String>, mut find: impl FnMut(&[T]) -> Option<R>) -> impl Future<Output = R> {
        let at = std::panic::Location::caller();
        let what = what.into();
        async move {
            let mut changed = self.changed.subscribe();
            let found = tokio::time::timeout(PATIENCE, async {
                loop {
                    if let Some(found) = find(&self.items()) {
                        return found;
                    }
                    changed.changed().await.expect("the list outlives this borrow of it");
                }
            });
            match found.await {
                Ok(found) => found,
                Err(_) => {
                    let items = self.items();
                    let tail = &items[items.len().saturating_sub(20)..];
                    panic!("{at}: waited {PATIENCE:?} for {what}; the last of {}: {tail:#?}", items.len());
                }
            }
        }
    }
}
