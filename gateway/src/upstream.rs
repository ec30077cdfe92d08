//! The targets that requests go to: their resolved addresses, their health, and whose turn it is.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::reason::Reason;
use crate::route::{Authority, Target};

/// Failures in a row after which a target is left out for [`PENALTY`].
const MAX_CONNECT_FAILURES: u32 = 3;
/// How long a failing target is left out while another one is in rotation.
const PENALTY: Duration = Duration::from_secs(5);
/// How often names are looked up again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait for one look-up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at a time.
const MAX_LOOKUPS: usize = 64;
/// Most addresses kept of one name.
const MAX_ADDRESSES: usize = 16;

/// What a target's name stands for right now.
#[derive(Debug)]
enum Resolution {
    Pending,
    Failed,
    Addresses(Vec<SocketAddr>),
}

/// One upstream authority, shared by every route that names it.
#[derive(Debug)]
pub struct Upstream {
    authority: Authority,
    resolution: ArcSwap<Resolution>,
    next_address: AtomicUsize,
    connect_failures: AtomicU32,
    /// Milliseconds since [`Upstreams::epoch`] until which the target is left out.
    out_until_ms: AtomicU64,
    /// None of a container: its name would be a label.
    gauge: Option<prometheus::Gauge>,
}

impl Upstream {
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The next address to try, round robin.
    pub fn address(&self) -> Result<SocketAddr, Reason> {
        match &**self.resolution.load() {
            Resolution::Addresses(addresses) => {
                let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
                addresses.get(turn % addresses.len().max(1)).copied().ok_or(Reason::UpstreamDns)
            }
            Resolution::Pending | Resolution::Failed => Err(Reason::UpstreamDns),
        }
    }

    /// The target took a connection.
    pub fn connected(&self) {
        // The load keeps the cache line shared between cores while all is well.
        if self.connect_failures.load(Ordering::Relaxed) != 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
            self.out_until_ms.store(0, Ordering::Relaxed);
            if let Some(gauge) = &self.gauge {
                gauge.set(1.0);
            }
        }
    }
}

/// The targets of one route, in rotation.
#[derive(Debug)]
pub struct Rotation {
    upstreams: Vec<Arc<Upstream>>,
    /// Indices into `upstreams`, one cycle of the weighted round robin; empty if all weights are 0.
    cycle: Vec<u16>,
    turn: AtomicUsize,
}

impl Rotation {
    /// Most targets of one route: which were tried is a bit set.
    pub const MAX_TARGETS: usize = 64;

    fn new(upstreams: Vec<Arc<Upstream>>, weights: &[u16]) -> Self {
        Self { cycle: smooth_cycle(weights), upstreams, turn: AtomicUsize::new(0) }
    }

    pub fn len(&self) -> usize {
        self.upstreams.len()
    }

    pub fn is_empty(&self) -> bool {
        self.upstreams.is_empty()
    }

    /// The target whose turn it is and its index, leaving out those in `tried` (a bit set), and
    /// those that keep failing as long as another one is left.
    pub fn pick(&self, tried: u64, now_ms: u64) -> Option<(usize, &Arc<Upstream>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut second_choice = None;
        for step in 0..self.cycle.len() {
            let index = usize::from(self.cycle[(turn + step) % self.cycle.len()]);
            if tried & (1 << index) != 0 {
                continue;
            }
            let upstream = &self.upstreams[index];
            if upstream.out_until_ms.load(Ordering::Relaxed) <= now_ms {
                return Some((index, upstream));
            }
            second_choice.get_or_insert((index, upstream));
        }
        second_choice
    }
}

/// Smooth weighted round robin (nginx's algorithm), run once for a whole cycle.
fn smooth_cycle(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().copied().filter(|w| *w > 0).reduce(gcd).unwrap_or(1);
    let weights: Vec<i64> = weights.iter().map(|w| i64::from(w / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    let mut cycle = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            current[index] += weight;
            if current[index] > current[best] {
                best = index;
            }
        }
        current[best] -= total;
        cycle.push(u16::try_from(best).unwrap_or(0));
    }
    cycle
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Every upstream in use, and the task that looks their names up.
#[derive(Clone, Debug)]
pub struct Upstreams {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    by_authority: Mutex<HashMap<Authority, Weak<Upstream>>>,
    /// Names that this process serves itself, such as the demo of `edd up`.
    builtin: HashMap<Authority, SocketAddr>,
    look_up_now: Notify,
    metrics: Option<Arc<Metrics>>,
}

impl Upstreams {
    pub fn new(builtin: HashMap<Authority, SocketAddr>, metrics: Arc<Metrics>) -> Self {
        Self::with(builtin, Some(metrics))
    }

    /// Containers that are known by name. They are no routes' targets, and have no metrics.
    pub fn of_containers() -> Self {
        Self::with(HashMap::new(), None)
    }

    fn with(builtin: HashMap<Authority, SocketAddr>, metrics: Option<Arc<Metrics>>) -> Self {
        let shared = Shared {
            epoch: Instant::now(),
            by_authority: Mutex::default(),
            builtin,
            look_up_now: Notify::new(),
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Milliseconds on the clock that [`Rotation::pick`] takes.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The rotation of a route's targets; targets known from other routes are shared.
    pub fn rotation(&self, targets: &[Target]) -> Rotation {
        let upstreams = targets.iter().map(|target| self.upstream(&target.authority)).collect();
        let weights: Vec<u16> = targets.iter().map(|target| target.weight).collect();
        Rotation::new(upstreams, &weights)
    }

    /// The target of this authority, which is shared by all who ask for it.
    pub fn upstream(&self, authority: &Authority) -> Arc<Upstream> {
        let mut known = self.shared.by_authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = known.get(authority).and_then(Weak::upgrade) {
            return upstream;
        }
        let address = match authority.ip() {
            Some(ip) => Some(SocketAddr::new(ip, authority.port)),
            None => self.shared.builtin.get(authority).copied(),
        };
        let up = |metrics: &Arc<Metrics>| metrics.upstream_up.with_label_values(&[&authority.to_string()]);
        let gauge = self.shared.metrics.as_ref().map(up).inspect(|gauge| gauge.set(1.0));
        let upstream = Arc::new(Upstream {
            authority: authority.clone(),
            resolution: ArcSwap::from_pointee(match address {
                Some(address) => Resolution::Addresses(vec![address]),
                None => Resolution::Pending,
            }),
            next_address: AtomicUsize::new(0),
            connect_failures: AtomicU32::new(0),
            out_until_ms: AtomicU64::new(0),
            gauge,
        });
        known.insert(authority.clone(), Arc::downgrade(&upstream));
        upstream
    }

    /// The target did not take a connection.
    pub fn connect_failed(&self, upstream: &Upstream) {
        let failures = upstream.connect_failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= MAX_CONNECT_FAILURES {
            let until = self.now_ms() + u64::try_from(PENALTY.as_millis()).unwrap_or(u64::MAX);
            upstream.out_until_ms.store(until, Ordering::Relaxed);
            if let Some(gauge) = &upstream.gauge {
                gauge.set(0.0);
            }
        }
        // Its name may stand for another address by now.
        if upstream.authority.ip().is_none() {
            self.shared.look_up_now.notify_one();
        }
    }

    /// A name was added: the next look-up is not to wait its time.
    pub fn look_up_soon(&self) {
        self.shared.look_up_now.notify_one();
    }

    /// Looks up every name that was never looked up; returns when all have an answer.
    pub async fn resolve_new(&self) {
        self.resolve(|upstream| matches!(**upstream.resolution.load(), Resolution::Pending)).await;
    }

    /// Keeps the addresses fresh. Runs until dropped.
    pub async fn run(self) {
        loop {
            // A failed connection asks for an early look-up, but never more than one a second.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = tokio::time::timeout(RESOLVE_INTERVAL, self.shared.look_up_now.notified()).await;
            self.resolve(|_| true).await;
        }
    }

    async fn resolve(&self, wanted: impl Fn(&Upstream) -> bool) {
        let names: Vec<Arc<Upstream>> = {
            let mut known = self.shared.by_authority.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|authority, upstream| {
                let alive = upstream.strong_count() > 0;
                if let Some(metrics) = self.shared.metrics.as_ref().filter(|_| !alive) {
                    let _ = metrics.upstream_up.remove_label_values(&[&authority.to_string()]);
                }
                alive
            });
            known.values().filter_map(Weak::upgrade).collect()
        };
        let lookups = names
            .iter()
            .filter(|upstream| upstream.authority.ip().is_none())
            .filter(|upstream| !self.shared.builtin.contains_key(&upstream.authority) && wanted(upstream))
            .map(|upstream| look_up(upstream));
        futures_util::stream::iter(lookups).for_each_concurrent(MAX_LOOKUPS, |lookup| lookup).await;
    }
}

async fn look_up(upstream: &Upstream) {
    let authority = &upstream.authority;
    let lookup = tokio::net::lookup_host((&*authority.host, authority.port));
    let addresses: Vec<SocketAddr> = match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => {
            tracing::debug!(upstream = %authority, %error, "name look-up failed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let known = upstream.resolution.load();
    match (&**known, addresses.is_empty()) {
        // The last known addresses serve on while the name server is away.
        (Resolution::Addresses(_), true) | (Resolution::Failed, true) => {}
        (Resolution::Pending, true) => {
            tracing::warn!(upstream = %authority, "the target's name does not resolve; it is tried again");
            upstream.resolution.store(Arc::new(Resolution::Failed));
        }
        (Resolution::Addresses(old), false) if *old == addresses => {}
        (_, false) => upstream.resolution.store(Arc::new(Resolution::Addresses(addresses))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams() -> Upstreams {
        Upstreams::new(HashMap::new(), Arc::new(Metrics::new().unwrap()))
    }

    fn targets(weights: &[u16]) -> Vec<Target> {
        let target = |(n, weight): (usize, &u16)| Target {
            authority: Authority::parse(&format!("127.0.0.{}:80", n + 1)).unwrap(),
            weight: *weight,
        };
        weights.iter().enumerate().map(target).collect()
    }

    #[test]
    fn weights_are_smooth_and_exact() {
        assert_eq!(smooth_cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(smooth_cycle(&[1000, 500]), [0, 1, 0]);
        assert_eq!(smooth_cycle(&[1, 0]), [0]);
        assert_eq!(smooth_cycle(&[0, 0]), [0u16; 0]);
    }

    #[test]
    fn a_failing_target_is_left_out_and_comes_back() {
        let upstreams = upstreams();
        let rotation = upstreams.rotation(&targets(&[1, 1]));
        let failing = Arc::clone(&rotation.upstreams[0]);
        for _ in 0..MAX_CONNECT_FAILURES {
            upstreams.connect_failed(&failing);
        }
        let now = upstreams.now_ms();
        assert!((0..4).all(|_| rotation.pick(0, now).unwrap().0 == 1));
        let later = now + 2 * PENALTY.as_millis() as u64;
        assert!((0..2).any(|_| rotation.pick(0, later).unwrap().0 == 0));
        failing.connected();
        assert!((0..2).any(|_| rotation.pick(0, now).unwrap().0 == 0));
    }

    #[test]
    fn tried_targets_are_not_picked_again() {
        let rotation = upstreams().rotation(&targets(&[3, 1]));
        assert_eq!(rotation.pick(0b01, 0).unwrap().0, 1);
        assert!(rotation.pick(0b11, 0).is_none());
    }

    #[test]
    fn routes_share_a_target() {
        let upstreams = upstreams();
        let (a, b) = (upstreams.rotation(&targets(&[1])), upstreams.rotation(&targets(&[7])));
        assert!(Arc::ptr_eq(&a.upstreams[0], &b.upstreams[0]));
    }
}
