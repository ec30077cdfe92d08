//! A container's time at one address: what uses it, and what ends with it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edd_proto::{ContainerId, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Begins when a container runs at an address, ends when it no longer does; sleep at the same address is a part of it.
/// Every route to the container shares it, whichever of its ports they lead to, and an update that changes neither keeps
/// it.
#[derive(Debug)]
pub struct Life {
    container: ContainerId,
    owner: UserId,
    /// Made by the first who needs it: most of a million containers have no stream at a time.
    retired: OnceLock<CancellationToken>,
    visits: AtomicU32,
    /// When compute was told of somebody who came, in seconds and one more; 0: not yet.
    told_s: AtomicU32,
    /// It is in the ledger's hands, or on its way there.
    is_noted: AtomicBool,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub requests: u64,
    /// Of bodies and streams, from clients.
    pub bytes_in: u64,
    /// To clients.
    pub bytes_out: u64,
}

impl Usage {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

impl Life {
    pub fn new(container: ContainerId, owner: UserId) -> Self {
        Self {
            container,
            owner,
            retired: OnceLock::new(),
            visits: AtomicU32::new(0),
            told_s: AtomicU32::new(0),
            is_noted: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub fn container(&self) -> ContainerId {
        self.container
    }

    pub fn owner(&self) -> UserId {
        self.owner
    }

    /// Whether a request or a stream of it goes on.
    pub fn is_in_use(&self) -> bool {
        self.visits.load(Ordering::SeqCst) > 0
    }

    /// When compute was last told of somebody who came, as [`Life::set_told`] was told, to the second.
    pub fn told(&self) -> Option<Duration> {
        self.told_s.load(Ordering::Relaxed).checked_sub(1).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Compute was told now, by a clock of the caller's.
    pub fn set_told(&self, now: Duration) {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX - 1);
        self.told_s.store(seconds + 1, Ordering::Relaxed);
    }

    /// Cancelled when what goes on with the container has to end.
    pub fn retired(&self) -> &CancellationToken {
        self.retired.get_or_init(CancellationToken::new)
    }
}

/// Tells of containers that are used. Clones share the way to the one who reads it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Every life is in it once at most, so that there are never more than containers.
    noted: mpsc::UnboundedSender<Arc<Life>>,
}

/// The other end of a [`Ledger`].
#[derive(Debug)]
pub struct LedgerReader {
    noted: mpsc::UnboundedReceiver<Arc<Life>>,
    in_use: Vec<Arc<Life>>,
}

impl Ledger {
    #[allow(clippy::disallowed_methods, reason = "every life is in it once at most, which bounds it")]
    pub fn new() -> (Self, LedgerReader) {
        let (sender, noted) = mpsc::unbounded_channel();
        (Self { noted: sender }, LedgerReader { noted, in_use: Vec::new() })
    }

    /// Something begins to use a container, and does until the visit is dropped.
    pub fn visit(&self, life: &Arc<Life>) -> Visit {
        life.visits.fetch_add(1, Ordering::SeqCst);
        self.note(life);
        Visit { life: Arc::clone(life), ledger: self.clone() }
    }

    fn note(&self, life: &Arc<Life>) {
        // The load keeps the cache line shared between cores while nothing changes.
        if !life.is_noted.load(Ordering::SeqCst) && !life.is_noted.swap(true, Ordering::SeqCst) {
            // Nobody reads any more: the gateway ends.
            let _ = self.noted.send(Arc::clone(life));
        }
    }
}

/// A request or a stream of a container while it goes on.
#[derive(Debug)]
pub struct Visit {
    life: Arc<Life>,
    ledger: Ledger,
}

impl Visit {
    pub fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Accounts for what was served.
    pub fn count(&self, usage: Usage) {
        let count = |counter: &AtomicU64, by: u64| {
            if by > 0 {
                counter.fetch_add(by, Ordering::Relaxed);
            }
        };
        count(&self.life.requests, usage.requests);
        count(&self.life.bytes_in, usage.bytes_in);
        count(&self.life.bytes_out, usage.bytes_out);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.life.visits.fetch_sub(1, Ordering::SeqCst);
        self.ledger.note(&self.life);
    }
}

impl LedgerReader {
    /// The lives that were used since the last call or are in use, and what was served meanwhile.
    pub fn read(&mut self) -> Vec<(Arc<Life>, Usage)> {
        while let Ok(life) = self.noted.try_recv() {
            self.in_use.push(life);
        }
        let read: Vec<_> = self.in_use.iter().map(|life| (Arc::clone(life), take(life))).collect();
        self.in_use.retain(|life| {
            if life.visits.load(Ordering::SeqCst) > 0 {
                return true;
            }
            life.is_noted.store(false, Ordering::SeqCst);
            // Who came before the flag was down has noted nothing.
            let came = life.visits.load(Ordering::SeqCst) > 0 || life.requests.load(Ordering::SeqCst) > 0;
            came && !life.is_noted.swap(true, Ordering::SeqCst)
        });
        read
    }
}

fn take(life: &Life) -> Usage {
    let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
    Usage { requests: take(&life.requests), bytes_in: take(&life.bytes_in), bytes_out: take(&life.bytes_out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Arc<Life> {
        Arc::new(Life::new("abcdefghij".parse().unwrap(), "V1StGXR8_Z5jdHi6B-myT".parse().unwrap()))
    }

    const ONE: Usage = Usage { requests: 1, bytes_in: 2, bytes_out: 3 };

    #[test]
    fn a_visit_is_told_while_it_lasts_and_its_usage_once() {
        let (ledger, mut reader) = Ledger::new();
        let life = life();
        let usages = |reader: &mut LedgerReader| reader.read().into_iter().map(|(_, usage)| usage).collect::<Vec<_>>();
        assert_eq!(usages(&mut reader), []);
        let (stream, request) = (ledger.visit(&life), ledger.visit(&life));
        request.count(ONE);
        drop(request);
        assert_eq!(usages(&mut reader), [ONE]);
        assert_eq!(usages(&mut reader), [Usage::default()], "the stream goes on");
        stream.count(ONE);
        drop(stream);
        assert_eq!(usages(&mut reader), [ONE]);
        assert_eq!(usages(&mut reader), []);
        drop(ledger.visit(&life));
        assert_eq!(usages(&mut reader), [Usage::default()], "used since the last look");
        assert_eq!(usages(&mut reader), []);
    }

    #[test]
    fn nothing_is_lost_between_visitors_and_reader() {
        let (ledger, mut reader) = Ledger::new();
        let lives = [life(), life()];
        let visitors: Vec<_> = (0..4)
            .map(|turn: usize| {
                let (ledger, life) = (ledger.clone(), Arc::clone(&lives[turn % 2]));
                std::thread::spawn(move || (0..20_000).for_each(|_| ledger.visit(&life).count(ONE)))
            })
            .collect();
        let mut total = Usage::default();
        let mut collect = |total: &mut Usage| reader.read().into_iter().for_each(|(_, usage)| total.add(usage));
        while !visitors.iter().all(std::thread::JoinHandle::is_finished) {
            collect(&mut total);
        }
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        collect(&mut total);
        collect(&mut total);
        assert_eq!(total, Usage { requests: 80_000, bytes_in: 160_000, bytes_out: 240_000 });
    }
}
