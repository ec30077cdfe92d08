//! The routing table by number of hosts: a look-up, a change of one host, and the whole build. The same for containers,
//! and what memory each of them takes.
//! `cargo bench --bench table`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use divan::{Bencher, black_box};
use edd_events::clock::SystemClock;
use edd_gateway::containers::keeper::Nobody;
use edd_gateway::containers::{Change, Config, Containers, Origin, Record, Timing};
use edd_gateway::decision::{self, BodyLength, Peer, RequestHead};
use edd_gateway::exchange::RequestId;
use edd_gateway::live::{LiveRoute, SshAccess, Status};
use edd_gateway::metrics::{Listener, Metrics};
use edd_gateway::proxy::framing::{self, HeadScanner};
use edd_gateway::route::{Action, Authority, HostName, HostPattern, PathPrefix, Protocol, Route, Source, Target};
use edd_gateway::router::{Router, Snapshot};
use edd_gateway::table::RouteTable;
use edd_gateway::table::containers::{ContainerMatch, Zone};
use edd_gateway::upstream::Upstreams;
use edd_proto::ContainerId;
use prometheus::Registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HOSTS: [usize; 3] = [10, 10_000, 1_000_000];
const FEW: [usize; 2] = [10, 10_000];

fn main() {
    for size in FLEETS {
        let before = resident_bytes();
        let fleet = fleet(size);
        let taken = resident_bytes().saturating_sub(before);
        println!("{size} containers: {} bytes of memory each", taken / size);
        drop(fleet);
    }
    divan::main();
}

/// What of the process is in memory.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0, |pages: usize| pages * PAGE_BYTES)
}

const FLEETS: [usize; 2] = [100_000, 1_000_000];

fn container(index: usize) -> ContainerId {
    format!("c{:09x}", index.wrapping_mul(0x9E37_79B1) % 0xF_FFFF_FFFF).parse().expect("a valid id")
}

fn record(index: usize, version: i64) -> Change {
    Change::Is(Record {
        id: container(index),
        owner: "V1StGXR8_Z5jdHi6B-myT".parse().expect("a valid id"),
        version,
        status: Status::Running,
        address: Some(Authority { host: "10.0.0.1".into(), port: 80 }),
        https_enabled: true,
        redirect_to_https: false,
        ssh: Some(ssh(index)),
    })
}

/// A host key that no other container has.
fn ssh(index: usize) -> SshAccess {
    let host_key = format!("SHA256:{index:042}A").parse().expect("a valid fingerprint");
    SshAccess { port: 22.try_into().ok(), host_key: Some(host_key), only_keys: None }
}

/// As many containers as a gateway serves, published.
fn fleet(size: usize) -> (Router, Containers) {
    let (router, registry) = (Router::default(), Registry::new());
    let config = Config {
        router: router.clone(),
        zone: Zone::of(&HostName::parse("cloud.localhost").expect("a valid host")).expect("a short host"),
        keeper: Arc::new(Nobody),
        metrics: &Metrics::new().expect("fresh metrics"),
        registry: &registry,
        clock: Arc::new(SystemClock),
        drain: Duration::ZERO,
        timing: Timing::default(),
    };
    let (containers, _ledger) = Containers::new(config).expect("fresh metrics");
    for page in (0..size).collect::<Vec<_>>().chunks(5000) {
        containers.apply(page.iter().map(|index| record(*index, 1)), Origin::Database);
    }
    (router, containers)
}

/// A random container's host, through the guard that a request takes.
#[divan::bench(args = FLEETS)]
fn look_up_container(bencher: Bencher, size: usize) {
    let (router, _containers) = fleet(size);
    let hosts: Vec<String> =
        (0..size.min(100_000)).map(|index| format!("{}.compute.cloud.localhost", container(index))).collect();
    let mut turn = 0usize;
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7919);
        let snapshot = router.snapshot();
        matches!(snapshot.containers.match_host(black_box(&hosts[turn % hosts.len()])), ContainerMatch::Container(_))
    });
}

/// One container's event, published.
#[divan::bench(args = FLEETS)]
fn change_one_container(bencher: Bencher, size: usize) {
    let (_router, containers) = fleet(size);
    let mut turn = 0usize;
    bencher
        .with_inputs(|| {
            turn = turn.wrapping_add(7919);
            record(turn % size, i64::try_from(turn).unwrap_or(i64::MAX))
        })
        .bench_local_values(|change| containers.apply([change], Origin::Event(1)));
}

fn host(index: usize) -> String {
    // Scattered, so that neighbours in the look-up order are not neighbours in memory.
    format!("c{:09x}.compute.cloud.localhost", index.wrapping_mul(0x9E37_79B1) % 0xF_FFFF_FFFF)
}

fn route(index: usize) -> Arc<Route> {
    let target = Target { authority: Authority { host: "10.0.0.1".into(), port: 80 }, weight: 1 };
    let action = Action::Proxy { targets: vec![target], protocol: Protocol::H1 };
    let host = HostPattern::parse(&host(index)).expect("a valid host");
    let path = PathPrefix::parse("/").expect("a valid path");
    Arc::new(Route::new(host, path, action, Source::File))
}

fn table(hosts: usize) -> RouteTable<Route> {
    RouteTable::build((0..hosts).map(route))
}

/// A random host, through the guard that a request takes.
#[divan::bench(args = HOSTS)]
fn look_up(bencher: Bencher, hosts: usize) {
    let table = ArcSwap::from_pointee(table(hosts));
    let names: Vec<String> = (0..hosts.min(100_000)).map(host).collect();
    let mut turn = 0usize;
    bencher.bench_local(|| {
        turn = turn.wrapping_add(7919);
        let name = &names[turn % names.len()];
        table.load().match_http(black_box(name), black_box("/some/path")).is_some()
    });
}

/// A host that is not there, with a wildcard and a default to try.
#[divan::bench(args = HOSTS)]
fn look_up_missing(bencher: Bencher, hosts: usize) {
    let table = table(hosts);
    bencher.bench(|| table.match_http(black_box("x.y.example.com"), black_box("/")).is_some());
}

/// One host's change, published.
#[divan::bench(args = HOSTS)]
fn change_one_host(bencher: Bencher, hosts: usize) {
    let table = ArcSwap::from_pointee(table(hosts));
    let mut turn = 0usize;
    bencher
        .with_inputs(|| {
            turn = turn.wrapping_add(7919);
            route(turn % hosts)
        })
        .bench_local_values(|route| {
            let mut next = RouteTable::clone(&table.load());
            next.set_host(&route.host, vec![Arc::clone(&route)]);
            table.store(Arc::new(next));
        });
}

/// A whole table, as after an edit of routes.yaml.
#[divan::bench(args = FEW, sample_count = 20)]
fn build(bencher: Bencher, hosts: usize) {
    let routes: Vec<_> = (0..hosts).map(route).collect();
    bencher.bench(|| RouteTable::build(routes.iter().cloned()));
}

const HEAD: &[u8] = b"GET /some/path?x=1 HTTP/1.1\r\nHost: cloud.localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n\r\n";

/// The strict rules over a browser's head.
#[divan::bench]
fn check_framing(bencher: Bencher) {
    bencher.bench(|| {
        let end = HeadScanner::default().scan(black_box(HEAD)).ok().flatten().unwrap_or_default();
        framing::check(&HEAD[..end]).is_ok()
    });
}

/// The whole decision for a request: identity, path, look-up, header changes.
#[divan::bench]
fn decide(bencher: Bencher) {
    let metrics = Arc::new(Metrics::new().expect("fresh metrics"));
    let upstreams = Upstreams::new(HashMap::new(), Arc::clone(&metrics));
    let live = LiveRoute::new((*route(0)).clone(), None, &upstreams, &metrics).expect("a route that can go live");
    let snapshot = Snapshot { table: RouteTable::build([Arc::new(live)]), revision: 1, ..Snapshot::default() };
    let (host, ip) = (host(0), std::net::IpAddr::from([127, 0, 0, 1]));
    let value = http::HeaderValue::from_str(&host).expect("a valid value");
    let headers = http::HeaderMap::from_iter([(http::header::HOST, value)]);
    bencher.bench(|| {
        let head = RequestHead {
            method: &http::Method::GET,
            authority: Some(&host),
            path: "/some/path",
            query: None,
            headers: &headers,
            body: BodyLength::None,
            http1: true,
            websocket: false,
        };
        let peer = Peer {
            listener: Listener::Http,
            dynamic_port: None,
            ip,
            trusted: false,
            tls: None,
            https_port: 443,
            trusted_proxies: &[],
        };
        let identity = decision::identify(&head, &peer, RequestId::generate());
        decision::decide(&head, &peer, &identity, &snapshot)
    });
}
