//! From a commit in compute to what the gateway answers, and from sleep to an answer.

use std::time::{Duration, Instant};

use edd_events::database::Database;
use edd_servers::port;
use serde_json::{Value, json};

use crate::harness::{Connection, Deployment, Made, Tenant, until};

/// How often each is measured.
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    pub changes: usize,
    pub ports: usize,
    pub sleeps: usize,
}

/// What was found with one setup.
#[derive(Debug, Default)]
pub struct Findings {
    /// Of a container that runs.
    pub changes: Vec<Lag>,
    pub ports: Vec<Lag>,
    /// From the request that wakes a container to its answer.
    pub from_pause: Vec<Duration>,
    pub from_stop: Vec<Duration>,
    /// From the request that makes a container to its first page.
    pub creations: Vec<Duration>,
}

/// How long the gateway answers as it did before a change.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// After the change was asked for.
    pub from_request: Duration,
    /// After compute said that it was committed; zero if the gateway knew sooner than that was heard.
    pub from_answer: Duration,
}

/// Between two looks at the gateway: what is measured shares the machine with who measures.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// What containers sleep with their memory kept, while that is measured.
const LONG_SECONDS: &str = "3600";
/// A container that is made anew for its first page, so often.
const CREATIONS: usize = 5;

/// Measures deployments that `deploy` makes, each with one container.
pub async fn measure(deploy: impl Fn() -> Deployment, samples: &Samples) -> Findings {
    let mut findings = Findings::default();
    let port = port::free();
    let mut deployment = start(deploy(), port, LONG_SECONDS).await;
    {
        let tenant = tenant(&deployment).await;
        for _ in 0..CREATIONS {
            let began = Instant::now();
            let made = tenant.create(json!({"name": "new", "ssh_enabled": false})).await;
            until_page(&tenant, &made.host).await;
            findings.creations.push(began.elapsed());
            tenant.done(&format!("DELETE /compute/containers/{}", made.id), Value::Null).await;
            tenant.until_gone(&made.id).await;
        }
        let made = tenant.run("measured").await;
        findings.changes = changes(&tenant, &made, samples.changes).await;
        findings.ports = ports(&tenant, &made, port, samples.ports).await;
        findings.from_pause = wakes(&tenant, &made, samples.sleeps, async || {}).await;
    }
    deployment.stop().await;
    let mut deployment = start(deploy(), port, "0").await;
    {
        let tenant = tenant(&deployment).await;
        let made = tenant.run("measured").await;
        let compute = Database::attach(deployment.database("compute")).await.expect("compute's database");
        let stopped = async || until_stopped(&compute, &made.id).await;
        findings.from_stop = wakes(&tenant, &made, samples.sleeps, stopped).await;
        compute.close().await;
    }
    deployment.stop().await;
    findings
}

async fn start(mut deployment: Deployment, port: u16, sleep_seconds: &str) -> Deployment {
    deployment.set_all("EDD_DYNAMIC_PORTS", &format!("{port}-{port}"));
    deployment.set_all("EDD_SLEEP_SECONDS", sleep_seconds);
    deployment.start().await;
    deployment
}

async fn tenant(deployment: &Deployment) -> Tenant<'_> {
    let tenant = Tenant { gateway: deployment.gateway(), user: deployment.register().await };
    tenant.until_known().await;
    tenant
}

/// A change of a container that costs its platform nothing: whether plain HTTP is redirected.
async fn changes(tenant: &Tenant<'_>, made: &Made, times: usize) -> Vec<Lag> {
    let mut client = tenant.gateway.connect().await;
    let request = format!("PUT /compute/containers/{}/https", made.id);
    let mut lags = Vec::with_capacity(times);
    for turn in 0..times {
        let is_on = turn % 2 == 0;
        let began = Instant::now();
        let change = async {
            tenant.done(&request, json!({"redirect_to_https": is_on})).await;
            began.elapsed()
        };
        let wanted = if is_on { 301 } else { 200 };
        let effect = async {
            while page(&mut client, &made.host).await != Some(wanted) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            began.elapsed()
        };
        lags.push(lag(change, effect).await);
    }
    tenant.done(&request, json!({"redirect_to_https": false})).await;
    until_page(tenant, &made.host).await;
    lags
}

/// A port that is opened for a container: asked for by it, given by the gateway, bound.
async fn ports(tenant: &Tenant<'_>, made: &Made, port: u16, times: usize) -> Vec<Lag> {
    let rules = format!("/compute/containers/{}/ingress", made.id);
    let is_open = async || match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => page(&mut Connection::over(stream), &made.host).await == Some(200),
        Err(_) => false,
    };
    let mut lags = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        let change = async {
            tenant.done(&format!("POST {rules}"), json!({"port": port, "target_port": 80})).await;
            began.elapsed()
        };
        let effect = async {
            while !is_open().await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            began.elapsed()
        };
        lags.push(lag(change, effect).await);
        tenant.done(&format!("DELETE {rules}/{port}"), Value::Null).await;
        until("the port to be closed", async || if is_open().await { Err("open".to_owned()) } else { Ok(()) }).await;
    }
    lags
}

async fn lag(change: impl Future<Output = Duration>, effect: impl Future<Output = Duration>) -> Lag {
    let (answered, effective) = tokio::join!(change, effect);
    Lag { from_request: effective, from_answer: effective.saturating_sub(answered) }
}

/// A container that is put to sleep, and woken by a request once it is `ready` for that.
async fn wakes(tenant: &Tenant<'_>, made: &Made, times: usize, ready: impl AsyncFn()) -> Vec<Duration> {
    let mut wakes = Vec::with_capacity(times);
    while wakes.len() < times {
        tenant.done(&format!("POST /compute/containers/{}/hibernate", made.id), Value::Null).await;
        tenant.until_status(&made.id, "hibernated").await;
        ready().await;
        let began = Instant::now();
        let answer = tenant.web(&made.host).await;
        let took = began.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Without it the request was faster than the news that the container sleeps, and waited for something else.
        if answer.headers.contains_key("x-edd-cold-start") {
            wakes.push(took);
        }
    }
    wakes
}

/// Waits until a container that sleeps has no memory any more, and so no address.
async fn until_stopped(compute: &Database, id: &str) {
    until("the container to be stopped", async || {
        let select = sqlx::query_scalar::<_, String>("SELECT address FROM containers WHERE id = $1").bind(id);
        match select.fetch_one(compute.reader()).await {
            Ok(address) if address.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn until_page(tenant: &Tenant<'_>, host: &str) {
    let mut client = tenant.gateway.connect().await;
    while page(&mut client, host).await != Some(200) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The status of a page on a connection that stays; none if it was closed.
async fn page(client: &mut Connection, host: &str) -> Option<u16> {
    client.try_send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await.ok()?;
    Some(client.try_response("GET").await.ok()?.status)
}
