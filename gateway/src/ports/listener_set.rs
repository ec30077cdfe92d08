//! The ports that are wanted against those that are open.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edd_proto::ContainerId;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection;
use super::door::{Door, Tenure};
use crate::ingress::Machine;
use crate::listeners::{self, Shared};
use crate::metrics::Listener;
use crate::router::{Router, Snapshot};

/// Pause before a port that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long sockets of a predecessor are kept for rules that are not known yet. Clients in their queues wait meanwhile.
const INHERITANCE: Duration = Duration::from_secs(5);

/// Every port of containers. Clones share it.
#[derive(Clone)]
pub struct ListenerSet {
    inner: Arc<Inner>,
}

struct Inner {
    bind: IpAddr,
    shared: Arc<Shared>,
    router: Router,
    /// What the connections of a closed port have to come to an end.
    drain_time: Duration,
    ports: Mutex<Ports>,
}

#[derive(Default)]
struct Ports {
    slots: BTreeMap<u16, Slot>,
    /// From a predecessor; each is taken when its port is wanted.
    inherited: BTreeMap<u16, std::net::TcpListener>,
}

enum Slot {
    Open(Open),
    /// Why the machine does not give it.
    Failed(String),
}

struct Open {
    door: Arc<Door>,
    /// Passed on to a successor.
    socket: std::net::TcpListener,
    closing: CancellationToken,
    accepting: JoinHandle<()>,
}

/// A port, for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortReport {
    pub port: u16,
    pub state: PortState,
    /// Why it is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Connections that are open now.
    pub connections: usize,
    pub rules: Vec<ReportedRule>,
}

/// Whether connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    Bound,
    /// Wanted a moment ago.
    Opening,
    Failed,
}

/// A rule of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedRule {
    pub container: ContainerId,
    pub target_port: u16,
    pub protocol: &'static str,
}

impl ListenerSet {
    /// Nothing is open yet. `inherited` are sockets of a predecessor.
    pub fn new(
        bind: IpAddr,
        shared: Arc<Shared>,
        router: Router,
        drain_time: Duration,
        inherited: Vec<std::net::TcpListener>,
    ) -> Self {
        let on_port = |socket: std::net::TcpListener| {
            let address = socket.local_addr().ok().filter(|address| address.ip() == bind)?;
            Some((address.port(), socket))
        };
        let inherited = inherited.into_iter().filter_map(on_port).collect();
        let ports = Mutex::new(Ports { slots: BTreeMap::new(), inherited });
        Self { inner: Arc::new(Inner { bind, shared, router, drain_time, ports }) }
    }

    /// Opens and closes ports until `stop`; when it returns, the drain knows of every connection that was accepted.
    pub async fn run(self, stop: CancellationToken) {
        let mut changed = self.inner.router.changed();
        let mut unclaimed = pin!(tokio::time::sleep(INHERITANCE));
        loop {
            // What comes from now on is not missed.
            changed.mark_unchanged();
            let all_open = self.apply();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // The router lives as long as this does.
                _ = changed.changed() => {}
                () = tokio::time::sleep(RETRY), if !all_open => {}
                () = &mut unclaimed, if !unclaimed.is_elapsed() => self.ports().inherited.clear(),
            }
        }
        let slots = std::mem::take(&mut self.ports().slots);
        for slot in slots.into_values() {
            if let Slot::Open(open) = slot {
                open.closing.cancel();
                // One that panicked accepts no more either.
                let _ = open.accepting.await;
            }
        }
    }

    /// Makes what is open what is wanted; whether it is. Connections to ports that stay notice nothing.
    fn apply(&self) -> bool {
        let snapshot = self.inner.router.snapshot();
        let mut ports = self.ports();
        let is_wanted = |port: &u16| snapshot.ports.rules(*port).next().is_some();
        let gone: Vec<u16> = ports.slots.keys().copied().filter(|port| !is_wanted(port)).collect();
        for port in gone {
            if let Some(Slot::Open(open)) = ports.slots.remove(&port) {
                self.close(open);
            }
        }
        for port in snapshot.ports.ports() {
            match ports.slots.get(&port) {
                Some(Slot::Open(open)) => self.let_to(&open.door, &snapshot),
                _ => {
                    let inherited = ports.inherited.remove(&port);
                    let slot = self.open(port, inherited, &snapshot, ports.slots.get(&port));
                    ports.slots.insert(port, slot);
                }
            }
        }
        !ports.slots.values().any(|slot| matches!(slot, Slot::Failed(_)))
    }

    fn open(
        &self,
        port: u16,
        inherited: Option<std::net::TcpListener>,
        snapshot: &Snapshot,
        before: Option<&Slot>,
    ) -> Slot {
        let bound = match inherited {
            Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
            None => listeners::bind(SocketAddr::new(self.inner.bind, port)),
        };
        let opened = bound.and_then(|listener| Ok((listeners::duplicate(&listener)?, listener)));
        let (socket, listener) = match opened {
            Ok((socket, listener)) => (std::net::TcpListener::from(socket), listener),
            Err(error) => {
                // Once for each failure, not for each try.
                if !matches!(before, Some(Slot::Failed(_))) {
                    tracing::error!(port, %error, "a port of containers cannot be opened; it is tried again");
                }
                return Slot::Failed(error.to_string());
            }
        };
        let Inner { shared, router, .. } = &*self.inner;
        let door = Arc::new(Door::new(port, shared.drain.part()));
        self.let_to(&door, snapshot);
        let closing = CancellationToken::new();
        let accepting = {
            let (door, router, shared, closing) =
                (Arc::clone(&door), router.clone(), Arc::clone(shared), closing.clone());
            tokio::spawn(async move {
                let serve = |stream, remote, ticket| {
                    connection::serve(stream, remote, Arc::clone(&door), router.clone(), Arc::clone(&shared), ticket)
                };
                listeners::accept_each(listener, Listener::Dynamic, &shared, &door.drain, closing, serve).await;
            })
        };
        tracing::info!(port, "a port of containers is open");
        Slot::Open(Open { door, socket, closing, accepting })
    }

    /// Gives the port to the raw rule that has it now, if one does; the connections of another one are drained.
    fn let_to(&self, door: &Door, snapshot: &Snapshot) {
        if let Some(ended) = door.let_to(snapshot.ports.match_tcp(door.port).map(|(rule, _)| *rule)) {
            self.drain(move || ended.over.cancel());
        }
    }

    fn close(&self, open: Open) {
        let door = open.door;
        tracing::info!(port = door.port, connections = door.drain.open(), "a port of containers closes");
        open.closing.cancel();
        // The task that accepts lets go of it later; whoever wants the port next can have it now.
        if let Err(error) = rustix::net::shutdown(&open.socket, rustix::net::Shutdown::Both) {
            tracing::debug!(port = door.port, %error, "a listening socket could not be shut down");
        }
        door.drain.start();
        door.drain.close_idle();
        let ended: Option<Arc<Tenure>> = door.let_to(None);
        self.drain(move || {
            ended.iter().for_each(|ended| ended.over.cancel());
            door.drain.cut();
        });
    }

    fn drain(&self, end: impl FnOnce() + Send + 'static) {
        let after = self.inner.drain_time;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            end();
        });
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every port that is wanted, in order.
    pub fn report(&self) -> Vec<PortReport> {
        let snapshot = self.inner.router.snapshot();
        let ports = self.ports();
        snapshot
            .ports
            .ports()
            .map(|port| {
                let (state, error, connections) = match ports.slots.get(&port) {
                    Some(Slot::Open(open)) => (PortState::Bound, None, open.door.drain.open()),
                    Some(Slot::Failed(error)) => (PortState::Failed, Some(error.clone()), 0),
                    None => (PortState::Opening, None, 0),
                };
                let rules = snapshot.ports.rules(port).map(|(rule, _)| ReportedRule {
                    container: rule.container,
                    target_port: rule.target_port,
                    protocol: rule.protocol.as_str(),
                });
                PortReport { port, state, error, connections, rules: rules.collect() }
            })
            .collect()
    }

    /// The open ports' sockets, for a successor.
    pub fn sockets(&self) -> io::Result<Vec<std::net::TcpListener>> {
        let ports = self.ports();
        let open = ports.slots.values().filter_map(|slot| match slot {
            Slot::Open(open) => Some(open.socket.try_clone()),
            Slot::Failed(_) => None,
        });
        open.collect()
    }
}

impl Machine for ListenerSet {
    fn offers(&self, port: u16) -> io::Result<()> {
        let ports = self.ports();
        if matches!(ports.slots.get(&port), Some(Slot::Open(_))) || ports.inherited.contains_key(&port) {
            return Ok(());
        }
        listeners::try_bind(SocketAddr::new(self.inner.bind, port))
    }
}

impl std::fmt::Debug for ListenerSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerSet").field("ports", &self.report()).finish_non_exhaustive()
    }
}
