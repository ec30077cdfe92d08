//! Connections to targets that wait for their next request.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// Connections kept, of all routes together.
const MAX_IDLE_CONNECTIONS: usize = 1024;
/// How long one waits.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two searches for those that waited too long, or were closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Parts with a lock each, which is held while a connection is put in or taken out.
const SHARDS: usize = 16;

/// Who may share connections: requests of one route, or to one container, at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub group: u64,
    pub address: SocketAddr,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Instant,
}

type Shard = HashMap<Key, VecDeque<Idle>, RandomState>;

#[derive(Debug, Default)]
pub struct Pool {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    idle: AtomicUsize,
}

impl Pool {
    /// The connection that was used last; one on which something came, even its end, is closed instead.
    pub fn take(&self, key: &Key) -> Option<TcpStream> {
        loop {
            let idle = self.shard(key).get_mut(key)?.pop_back()?;
            self.idle.fetch_sub(1, Ordering::Relaxed);
            if is_usable(&idle) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection for the next request, if there is room.
    pub fn put(&self, key: Key, stream: TcpStream) {
        if self.idle.fetch_add(1, Ordering::Relaxed) >= MAX_IDLE_CONNECTIONS {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.shard(&key).entry(key).or_default().push_back(Idle { stream, since: Instant::now() });
    }

    /// Closes what nobody will use any more. Runs until dropped.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            for shard in &self.shards {
                let keys: Vec<(Key, usize)> = lock(shard).iter().map(|(key, waiting)| (*key, waiting.len())).collect();
                for (key, length) in keys {
                    // One at a time, and looked at without the lock, which requests take.
                    (0..length).for_each(|_| self.turn(shard, &key));
                    let mut shard = lock(shard);
                    if shard.get(&key).is_some_and(VecDeque::is_empty) {
                        shard.remove(&key);
                    }
                }
            }
        }
    }

    /// Puts the connection that waits longest behind the others, or closes it.
    fn turn(&self, shard: &Mutex<Shard>, key: &Key) {
        let Some(idle) = lock(shard).get_mut(key).and_then(VecDeque::pop_front) else { return };
        if is_usable(&idle) {
            lock(shard).entry(*key).or_default().push_back(idle);
        } else {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a connection is young enough, open and silent. Asks the kernel: what tokio knows may be a moment old, and
/// bytes that nobody asked for would be taken for the next answer.
fn is_usable(idle: &Idle) -> bool {
    let mut byte = [0u8; 1];
    idle.since.elapsed() < IDLE_TIMEOUT
        && recv(&idle.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT)
            .is_err_and(|error| error == rustix::io::Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_closed_or_spoke_unasked_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pool, address) = (Pool::default(), listener.local_addr().unwrap());
        let (key, other) = (Key { group: 1, address }, Key { group: 2, address });
        let (quiet, _quiet) = connection(&listener).await;
        let (loud, mut talker) = connection(&listener).await;
        let (closed, closer) = connection(&listener).await;
        drop(closer);
        talker.write_all(b"x").await.unwrap();
        let (mark, wanted) = (quiet.local_addr().unwrap(), 1);
        [quiet, loud, closed].into_iter().for_each(|stream| pool.put(key, stream));
        assert!(pool.take(&other).is_none(), "groups share nothing");
        assert_eq!(pool.take(&key).map(|stream| stream.local_addr().unwrap()), Some(mark));
        assert!(pool.take(&key).is_none());
        assert_eq!(pool.idle.load(Ordering::Relaxed) + wanted, 1);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_there_is_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pool, key) = (Pool::default(), Key { group: 1, address: listener.local_addr().unwrap() });
        pool.idle.store(MAX_IDLE_CONNECTIONS, Ordering::Relaxed);
        let (stream, _theirs) = connection(&listener).await;
        pool.put(key, stream);
        assert!(pool.take(&key).is_none());
        assert_eq!(pool.idle.load(Ordering::Relaxed), MAX_IDLE_CONNECTIONS);
    }
}
