//! A gateway's containers without the gateway: compute is a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use edd_events::clock::ManualClock;
use edd_proto::{ContainerId, UserId};
use prometheus::Registry;
use tokio::sync::watch;

use crate::containers::keeper::{Keeper, KeeperError};
use crate::containers::{Change, Config, Containers, KeyChange, KeyRecord, Origin, Record, Timing};
use crate::live::{LedgerReader, LiveRoute, Status};
use crate::metrics::Metrics;
use crate::route::{Authority, HostName};
use crate::router::Router;
use crate::table::containers::Zone;
use crate::table::fingerprint::Fingerprint;

pub(crate) const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
pub(crate) const BEN: &str = "V1StGXR8_Z5jdHi6B-myS";
/// 2024-01-22T11:46:40Z.
pub(crate) const NOW: i64 = 1_705_924_000_000_000;

/// A container's id that ends with `number`.
pub(crate) fn id(number: u32) -> ContainerId {
    format!("c{number:09}").parse().unwrap()
}

pub(crate) fn user(text: &str) -> UserId {
    text.parse().unwrap()
}

/// Ann's container, which runs at a port of this machine.
pub(crate) fn record(number: u32, version: i64, status: Status, port: u16) -> Record {
    Record {
        id: id(number),
        owner: user(ANN),
        version,
        status,
        address: Authority::parse(&format!("127.0.0.1:{port}")).ok(),
        https_enabled: true,
        redirect_to_https: false,
        ssh: None,
    }
}

/// A fingerprint that ends with `number`.
pub(crate) fn fingerprint(number: u8) -> Fingerprint {
    const BASE64: &[u8] = b"AEIMQUYcgkosw048";
    let last = char::from(BASE64[usize::from(number)]);
    format!("SHA256:{}{last}", "A".repeat(42)).parse().unwrap()
}

/// A key of `owner`'s.
pub(crate) fn key(id: i64, version: i64, owner: &str, fingerprint: Fingerprint) -> KeyChange {
    KeyChange::Is(KeyRecord { id, owner: user(owner), version, fingerprint })
}

/// Compute as a script: what it says to each order, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Script {
    answers: Mutex<VecDeque<Result<(), KeeperError>>>,
    woken: watch::Sender<Vec<ContainerId>>,
    pub active: Mutex<Vec<Vec<ContainerId>>>,
    /// What each report is answered with; further ones are taken.
    pub heard: Mutex<VecDeque<Result<Vec<ContainerId>, KeeperError>>>,
}

impl Script {
    /// Orders are answered with `answer`, one after the other; further ones are taken.
    pub fn answer(&self, answer: Result<(), KeeperError>) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    /// The orders so far.
    pub fn woken(&self) -> Vec<ContainerId> {
        self.woken.borrow().clone()
    }

    /// Waits until there were `count` orders.
    pub async fn was_asked(&self, count: usize) {
        let mut woken = self.woken.subscribe();
        let asked = woken.wait_for(|woken| woken.len() >= count);
        tokio::time::timeout(Duration::from_secs(20), asked).await.expect("an order").expect("a script");
    }
}

#[async_trait]
impl Keeper for Script {
    async fn wake(&self, id: ContainerId) -> Result<(), KeeperError> {
        self.woken.send_modify(|woken| woken.push(id));
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(()))
    }

    async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).push(ids.to_vec());
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(Vec::new()))
    }
}

pub(crate) struct Scene {
    pub router: Router,
    pub containers: Containers,
    pub ledger: LedgerReader,
    pub script: Arc<Script>,
    pub clock: ManualClock,
    pub metrics: Arc<Metrics>,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(Timing::default(), Duration::ZERO)
    }

    pub fn with(timing: Timing, drain: Duration) -> Self {
        let (router, clock, registry) = (Router::default(), ManualClock::at(NOW), Registry::new());
        let metrics = Arc::new(Metrics::on(registry.clone()).unwrap());
        let script = Arc::new(Script::default());
        let config = Config {
            router: router.clone(),
            zone: Zone::of(&HostName::parse("cloud.localhost").unwrap()).unwrap(),
            keeper: script.clone(),
            metrics: &metrics,
            registry: &registry,
            clock: Arc::new(clock.clone()),
            drain,
            timing,
        };
        let (containers, ledger) = Containers::new(config).unwrap();
        Self { router, containers, ledger, script, clock, metrics }
    }

    /// What the stream would tell.
    pub fn hear(&self, record: Record) -> usize {
        self.containers.apply([Change::Is(record)], Origin::Event(1))
    }

    /// The same of a key.
    pub fn hear_key(&self, change: KeyChange) -> usize {
        self.containers.ssh_keys().apply([change], Origin::Event(1))
    }

    pub fn live(&self, number: u32) -> Option<Arc<LiveRoute>> {
        self.router.snapshot().containers.get(id(number)).cloned()
    }

    pub fn status(&self, number: u32) -> Option<Status> {
        Some(self.live(number)?.backend()?.status())
    }
}
