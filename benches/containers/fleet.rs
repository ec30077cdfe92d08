//! Gateways whose tables hold few or many containers, beside one another.

use std::time::{Duration, Instant};

use edd_events::database::Database;
use edd_servers::nats::Nats;
use sqlx::AssertSqlSafe;

use crate::harness::{Edd, knowing};
use crate::load;

/// Containers that requests are for. Each has upstream connections of its own, so that only tables differ.
const BUSY: usize = 10;
/// Rows that one statement writes.
const FILL_ROWS: usize = 100_000;
/// Longest wait for a gateway to know all containers.
const LONGEST_LOAD: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was found of one size.
#[derive(Clone, Debug)]
pub struct Finding {
    pub containers: usize,
    pub resident_bytes: u64,
    /// From the start of the process until it knows all.
    pub loaded_in: Duration,
    /// Requests per second and the gateway's processor seconds per 100,000 requests, by round.
    pub rounds: Vec<(f64, f64)>,
}

struct Fleet {
    edd: Edd,
    hosts: Vec<String>,
    finding: Finding,
}

/// Starts a gateway for each size and asks all of them in turns; each round begins with another one.
pub async fn measure(sizes: &[usize], rounds: usize, length: Duration) -> Vec<Finding> {
    let (nats, upstream) = (Nats::start(), load::upstream().await);
    let mut fleets = Vec::new();
    for size in sizes {
        fleets.push(Fleet::start(&nats, *size, upstream.port()).await);
    }
    for fleet in &fleets {
        load::run(fleet.edd.http, &fleet.hosts, length).await;
    }
    for round in 0..rounds {
        for turn in 0..fleets.len() {
            let at = (round + turn) % fleets.len();
            let fleet = &mut fleets[at];
            let before = cpu_seconds(fleet.edd.pid());
            let began = Instant::now();
            let rate = load::run(fleet.edd.http, &fleet.hosts, length).await;
            let requests = rate * began.elapsed().as_secs_f64();
            let cost = (cpu_seconds(fleet.edd.pid()) - before) / requests * 100_000.0;
            fleet.finding.rounds.push((rate, cost));
        }
    }
    fleets.into_iter().map(|fleet| fleet.finding).collect()
}

impl Fleet {
    async fn start(nats: &Nats, containers: usize, upstream_port: u16) -> Self {
        let builder = knowing(nats, async |database| fill(database, containers, upstream_port).await).await;
        let began = Instant::now();
        let edd = builder.start().await;
        until_loaded(&edd, containers).await;
        let loaded_in = began.elapsed();
        let resident_bytes = edd.resident_kib() * 1024;
        let hosts = (0..BUSY.min(containers)).map(|index| host(index * (containers / BUSY).max(1))).collect();
        let finding = Finding { containers, resident_bytes, loaded_in, rounds: Vec::new() };
        Self { edd, hosts, finding }
    }
}

async fn until_loaded(edd: &Edd, containers: usize) {
    let wanted = format!("edd_containers{{status=\"running\"}} {containers}\n");
    let looks = async {
        while !edd.admin("/metrics").await.text().contains(&wanted) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(LONGEST_LOAD, looks).await.expect("all containers are known");
}

/// Scattered, so that neighbours in the order of their making are not neighbours in the table; SQLite does the same.
fn host(index: usize) -> String {
    format!("c{:09x}.compute.cloud.localhost", index * 0x9E37_79B1 % 0xF_FFFF_FFFF)
}

/// Writes rows of running containers, as compute's events would have.
async fn fill(database: &Database, containers: usize, port: u16) {
    for from in (0..containers).step_by(FILL_ROWS) {
        let last = (from + FILL_ROWS).min(containers) - 1;
        let insert = format!(
            "WITH RECURSIVE row(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM row WHERE n < {last}) \
             INSERT INTO containers (container_id, user_id, name, status, address, http_port, ssh_port, ssh_enabled, \
             https_enabled, redirect_to_https, ssh_keys_restricted, ssh_key_ids, ssh_host_key_fingerprint, version, \
             deleted, synced_at, round) \
             SELECT printf('c%09x', n * {scatter} % {modulus}), printf('user-%016x', n / 3), 'one of many', {running}, \
             '127.0.0.1', {port}, 0, 0, 1, 0, 0, '', '', 1, 0, 0, 0 FROM row",
            scatter = 0x9E37_79B1_u64,
            modulus = 0xF_FFFF_FFFF_u64,
            running = i32::from(edd_proto::compute::ContainerStatus::Running),
        );
        sqlx::query(AssertSqlSafe(insert)).execute(database.writer()).await.expect("rows");
    }
}

/// User and system time of a process so far.
fn cpu_seconds(process: u32) -> f64 {
    /// USER_HZ, which is 100 on every architecture that Linux runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name before it may hold anything; utime and stime are the fields 14 and 15.
    let fields = stat.rsplit_once(") ").expect("a name in parentheses").1.split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
}
