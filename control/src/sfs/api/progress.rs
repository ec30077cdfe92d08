//! How far uploads and downloads are: told to who makes them, by this process, over server-sent events.
//!
//! A transfer is known by an id that its client chose, and to nobody but the user whose it is. Whoever asks before it has
//! begun waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edd_proto::UserId;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

/// Transfers that are remembered: all, and those of one user. Further ones go on and are not told of.
const MAX_TRANSFERS: usize = 4096;
const MAX_USER_TRANSFERS: usize = 128;
/// How long the end of one is remembered.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// Longest id that a client may choose, bytes.
const MAX_ID_BYTES: usize = 128;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    Upload,
    Download,
}

/// How far a transfer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Progress {
    id: Arc<str>,
    /// None: it has not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<Direction>,
    bytes: u64,
    /// None: nobody said.
    total: Option<u64>,
    pub(super) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Progress {
    pub(super) fn has_begun(&self) -> bool {
        self.direction.is_some()
    }
}

type Key = (UserId, Arc<str>);

#[derive(Debug)]
struct Known {
    progress: watch::Sender<Progress>,
    /// None: it goes on, or somebody waits for it.
    ended_at: Option<Instant>,
}

/// The transfers of this process; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfers(Arc<Mutex<HashMap<Key, Known>>>);

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `user` begins a transfer that they call `id`. None: they have not named it, or too many are known.
    ///
    /// # Errors
    /// The id is none.
    pub(super) fn begin(
        &self,
        user: UserId,
        id: Option<&str>,
        direction: Direction,
        total: Option<u64>,
    ) -> Result<Option<Transfer>, Error> {
        let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
        let key = (user, checked(id)?);
        let begun = Progress { direction: Some(direction), total, ..waiting(&key.1) };
        let mut known = self.lock();
        if let Some(known) = known.get_mut(&key) {
            known.progress.send_replace(begun);
            known.ended_at = None;
        } else if make_room(&mut known, user) {
            known.insert(key.clone(), Known { progress: watch::Sender::new(begun), ended_at: None });
        } else {
            return Ok(None);
        }
        drop(known);
        Ok(Some(Transfer { transfers: self.clone(), key, is_over: false }))
    }

    /// Follows a transfer of `user`'s, also one that has not begun.
    ///
    /// # Errors
    /// The id is none, or too many are known.
    pub(super) fn watch(&self, user: UserId, id: &str) -> Result<watch::Receiver<Progress>, Error> {
        let key = (user, checked(id)?);
        let mut known = self.lock();
        if let Some(known) = known.get(&key)
            && known.ended_at.is_none_or(|at| at.elapsed() < KEPT_AFTER_END)
        {
            return Ok(known.progress.subscribe());
        }
        known.remove(&key);
        if !make_room(&mut known, user) {
            let message = "too many transfers are being followed: wait until some have ended";
            return Err(Error::too_many_requests(message, KEPT_AFTER_END));
        }
        let progress = watch::Sender::new(waiting(&key.1));
        let receiver = progress.subscribe();
        known.insert(key, Known { progress, ended_at: None });
        Ok(receiver)
    }
}

fn waiting(id: &Arc<str>) -> Progress {
    Progress { id: id.clone(), direction: None, bytes: 0, total: None, done: false, error: None }
}

fn checked(id: &str) -> Result<Arc<str>, Error> {
    if (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(id.into())
    } else {
        Err(Error::bad_request(format!("id: 1 to {MAX_ID_BYTES} visible characters of ASCII")))
    }
}

/// Forgets what is over, and what nobody waits for any more. Whether there is room for one more of `user`.
fn make_room(known: &mut HashMap<Key, Known>, user: UserId) -> bool {
    let is_full = |known: &HashMap<Key, Known>| {
        let own = known.keys().filter(|(owner, _)| *owner == user).count();
        own >= MAX_USER_TRANSFERS || known.len() >= MAX_TRANSFERS
    };
    if is_full(known) {
        known.retain(|_, known| match known.ended_at {
            Some(at) => at.elapsed() < KEPT_AFTER_END,
            None => known.progress.borrow().has_begun() || known.progress.receiver_count() > 0,
        });
    }
    !is_full(known)
}

/// One that goes on. Dropped without a word, it was broken off.
#[derive(Debug)]
pub(super) struct Transfer {
    transfers: Transfers,
    key: Key,
    is_over: bool,
}

impl Transfer {
    /// So many bytes more went through.
    pub(super) fn add(&self, bytes: u64) {
        self.change(|progress| progress.bytes += bytes);
    }

    pub(super) fn done(mut self) {
        self.end(None);
    }

    pub(super) fn failed(mut self, why: &str) {
        self.end(Some(why.to_owned()));
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(known) = self.transfers.lock().get(&self.key) {
            known.progress.send_modify(change);
        }
    }

    fn end(&mut self, error: Option<String>) {
        self.is_over = true;
        if let Some(known) = self.transfers.lock().get_mut(&self.key) {
            known.ended_at = Some(Instant::now());
            known.progress.send_modify(|progress| {
                progress.done = true;
                progress.error = error;
            });
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Some("the transfer was broken off".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ann() -> UserId {
        "V1StGXR8_Z5jdHi6B-myT".parse().unwrap()
    }

    fn bob() -> UserId {
        "W1StGXR8_Z5jdHi6B-myT".parse().unwrap()
    }

    fn shown(receiver: &watch::Receiver<Progress>) -> serde_json::Value {
        serde_json::to_value(&*receiver.borrow()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_is_followed_from_before_its_beginning_to_after_its_end() {
        let transfers = Transfers::default();
        let follower = transfers.watch(ann(), "t1").unwrap();
        assert!(!follower.borrow().has_begun());
        let transfer = transfers.begin(ann(), Some("t1"), Direction::Upload, Some(10)).unwrap().unwrap();
        transfer.add(4);
        assert_eq!(
            shown(&follower),
            json!({"id": "t1", "direction": "upload", "bytes": 4, "total": 10, "done": false})
        );
        assert!(!transfers.watch(bob(), "t1").unwrap().borrow().has_begun(), "somebody else's is another");
        transfer.add(6);
        transfer.done();
        assert_eq!(
            shown(&transfers.watch(ann(), "t1").unwrap()),
            json!({"id": "t1", "direction": "upload", "bytes": 10, "total": 10, "done": true})
        );
        tokio::time::advance(KEPT_AFTER_END).await;
        assert!(!transfers.watch(ann(), "t1").unwrap().borrow().has_begun(), "it is forgotten");
    }

    #[tokio::test]
    async fn what_ends_badly_says_so() {
        let transfers = Transfers::default();
        let begin = |id| transfers.begin(ann(), Some(id), Direction::Download, None).unwrap().unwrap();
        begin("a").failed("the disk is full");
        drop(begin("b"));
        let error = |id| shown(&transfers.watch(ann(), id).unwrap())["error"].clone();
        assert_eq!((error("a"), error("b")), (json!("the disk is full"), json!("the transfer was broken off")));
        // Another try has the same id.
        begin("b").done();
        assert_eq!(error("b"), json!(null));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let transfers = Transfers::default();
        let begin = |user, id: usize| transfers.begin(user, Some(&id.to_string()), Direction::Upload, None).unwrap();
        let mut running: Vec<_> = (0..MAX_USER_TRANSFERS).map(|id| begin(ann(), id).unwrap()).collect();
        assert!(begin(ann(), MAX_USER_TRANSFERS).is_none());
        assert!(transfers.watch(ann(), "other").is_err());
        assert!(begin(bob(), 1).is_some(), "each user for themselves");
        running.pop().unwrap().done();
        assert!(begin(ann(), MAX_USER_TRANSFERS).is_none(), "its end is still told");
        tokio::time::advance(KEPT_AFTER_END).await;
        assert!(begin(ann(), MAX_USER_TRANSFERS).is_some());
        for id in ["a b", "ü", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(transfers.watch(ann(), id).is_err(), "{id}");
        }
        assert!(transfers.begin(ann(), None, Direction::Upload, None).unwrap().is_none());
    }

    #[tokio::test]
    async fn who_waits_in_vain_and_goes_leaves_nothing() {
        let transfers = Transfers::default();
        for id in 0..10 * MAX_USER_TRANSFERS {
            drop(transfers.watch(ann(), &id.to_string()).unwrap());
        }
        assert!(transfers.lock().len() <= MAX_USER_TRANSFERS);
    }
}
