//! Containers, ports and what may go wrong with them, end to end: asking for what cannot be had, processes that die half
//! way, a gateway that finds nobody to ask, answers that are made to hit somebody else.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use edd_events::database::Database;
use edd_servers::nats::Nats;
use edd_servers::port;
use edd_servers::postgres::{Postgres, Settings};
use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::traces::{processes, traces};
use crate::harness::{Cases, Deployment, Edd, Made, RawUpstream, Role, Tenant, ask, knowing, until};

async fn tenant(deployment: &Deployment) -> Tenant<'_> {
    let tenant = Tenant { gateway: deployment.gateway(), user: deployment.register().await };
    tenant.until_known().await;
    tenant
}

/// The state of a rule, once the gateway has said something of it, and its reason.
async fn decided(tenant: &Tenant<'_>, made: &Made, port: u16) -> (String, String) {
    let path = format!("GET /compute/containers/{}/ingress", made.id);
    let found = std::cell::RefCell::new(Value::Null);
    until("the gateway's answer", async || {
        let listed = tenant.done(&path, Value::Null).await;
        let rules = listed["rules"].as_array().expect("a list");
        let rule = rules.iter().find(|rule| rule["port"] == port).unwrap_or_else(|| panic!("{port} in {listed}"));
        if rule["state"] == "pending" {
            return Err(rule.to_string());
        }
        found.replace(rule.clone());
        Ok(())
    })
    .await;
    let rule = found.into_inner();
    let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

/// Nobody gets a port that they must not have, and everybody is told why.
#[tokio::test]
async fn a_port_that_cannot_be_had_says_why() {
    let ports: [u16; 4] = [(); 4].map(|()| port::free());
    let [shared, raw, reserved, held] = ports;
    let (first, last) = (ports.into_iter().min().expect("four"), ports.into_iter().max().expect("four"));
    let _elsewhere = TcpListener::bind(("0.0.0.0", held)).expect("a free port");
    let mut deployment = Deployment::single();
    deployment.set_all("EDD_DYNAMIC_PORTS", &format!("{first}-{last}"));
    deployment.set_all("EDD_ADMIN_LISTEN", &format!("127.0.0.1:{reserved}"));
    deployment.start().await;
    let (ann, bob) = (tenant(&deployment).await, tenant(&deployment).await);
    let (hers, his) = tokio::join!(ann.run("hers"), bob.run("his"));
    let rules = |made: &Made| format!("POST /compute/containers/{}/ingress", made.id);
    let mut cases = Cases::default();

    let beyond = [first - 1, last + 1].map(i64::from);
    let never = [0, -1, -i64::from(shared), 65_536, 65_536 + i64::from(shared), i64::MAX, i64::MIN];
    for number in beyond.into_iter().chain(never) {
        cases
            .case(&format!("port {number}"), async {
                let answer = ann.ask(&rules(&hers), &json!({"port": number, "target_port": 80})).await;
                assert_eq!(answer.status, 400, "{}", answer.text());
                assert!(answer.text().contains(&format!("{first} to {last}")), "{}", answer.text());
            })
            .await;
    }
    for body in [
        json!({"port": f64::from(shared) + 0.5}),
        json!({"port": shared.to_string()}),
        json!({"port": [shared]}),
        json!({}),
        json!({"port": shared, "target_port": 0}),
        json!({"port": shared, "target_port": -80}),
        json!({"port": shared, "target_port": 65_536}),
        json!({"port": shared, "protocol": "udp"}),
    ] {
        cases
            .case(&body.to_string(), async {
                let answer = ann.ask(&rules(&hers), &body).await;
                assert!((400..=422).contains(&answer.status), "{}: {}", answer.status, answer.text());
            })
            .await;
    }
    cases
        .case("somebody else's container", async {
            for body in [json!({"port": shared, "target_port": 80}), json!({"port": 1})] {
                let answer = bob.ask(&rules(&hers), &body).await;
                assert!([400, 404].contains(&answer.status), "{}", answer.text());
                assert_eq!(answer.status == 404, body["port"] != 1, "what it is comes before whose: {}", answer.text());
            }
            let listed = ann.done(&format!("GET /compute/containers/{}/ingress", hers.id), Value::Null).await;
            assert_eq!(listed["rules"], json!([]));
        })
        .await;
    cases
        .case("the gateway's own, and one that something else has", async {
            for (port, told) in [(reserved, "the gateway's own"), (held, "something else may hold it")] {
                ann.done(&rules(&hers), json!({"port": port, "target_port": 80})).await;
                let (state, reason) = decided(&ann, &hers, port).await;
                assert_eq!(state, "rejected", "{port}: {reason}");
                assert!(reason.contains(told) && reason.contains(&port.to_string()), "{reason}");
            }
        })
        .await;
    cases
        .case("raw TCP beside others", async {
            ann.done(&rules(&hers), json!({"port": raw, "target_port": 80, "protocol": "tcp"})).await;
            assert_eq!(decided(&ann, &hers, raw).await.0, "active");
            let again = ann.ask(&rules(&hers), &json!({"port": raw, "target_port": 81})).await;
            assert_eq!(again.status, 409, "{}", again.text());
            for protocol in ["tcp", "http", "auto"] {
                bob.done(&rules(&his), json!({"port": raw, "target_port": 80, "protocol": protocol})).await;
                let (state, reason) = decided(&bob, &his, raw).await;
                assert_eq!(state, "rejected", "{protocol}: {reason}");
                assert!(!reason.contains(&hers.id), "it names somebody else's container: {reason}");
                bob.done(&format!("DELETE /compute/containers/{}/ingress/{raw}", his.id), Value::Null).await;
            }
            let page = ask(([127, 0, 0, 1], raw).into(), "GET /", &his.host, &[], &Value::Null).await;
            assert!(page.expect("an answer").text().contains(&hers.id), "it is still hers");
        })
        .await;
    cases.finish();
    deployment.stop().await;
}

#[tokio::test]
async fn an_image_that_does_not_exist_fails_with_its_reason() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let ann = tenant(&deployment).await;
    let made = ann.create(json!({"name": "x", "ssh_enabled": false, "image": "no-such:image"})).await;
    until("the failure", async || {
        // It is not there yet, or failed; it never answers.
        let page = ann.web(&made.host).await;
        assert!([404, 503].contains(&page.status), "{}: {}", page.status, page.text());
        let container = ann.container(&made.id).await;
        assert_ne!(container["status"], "running", "{container}");
        if container["status"] == "failed" { Ok(()) } else { Err(container.to_string()) }
    })
    .await;
    let reason = ann.container(&made.id).await["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("there is no image") && reason.contains("no-such:image"), "{reason}");
    ann.until_page(&made.host, 503, "container_failed").await;
    assert_eq!(traces(&made.id), [""; 0]);
    ann.done(&format!("DELETE /compute/containers/{}", made.id), Value::Null).await;
    ann.until_web(&made.host, 404).await;
    deployment.stop().await;
}

/// Where compute dies while it makes a container.
#[derive(Debug)]
enum Death {
    /// At a fail point, from its start on.
    At(&'static str),
    /// As soon as the platform has begun with a container.
    OnceTheDirectoryIsThere,
}

/// Compute is killed in the midst of making a container, and started again: there is one container, and one only, or
/// none of which its owner was told that there is one.
#[tokio::test(flavor = "multi_thread")]
async fn compute_that_dies_while_it_makes_a_container_makes_it_once() {
    let (nats, postgres) = (Nats::start(), Postgres::shared());
    let mut deployment = Deployment::separate(&nats, postgres);
    deployment.set_all("EDD_MAX_CONTAINERS", "20");
    deployment.start().await;
    for death in [
        Death::At("publisher.added"),
        Death::At("relay.published"),
        Death::At("publisher.added:2"),
        Death::At("publisher.added:3"),
        Death::OnceTheDirectoryIsThere,
    ] {
        eprintln!("case: {death:?}");
        dies_and_goes_on(&mut deployment, &death).await;
    }
    deployment.stop().await;
}

async fn dies_and_goes_on(deployment: &mut Deployment, death: &Death) {
    let user = deployment.register().await;
    if let Death::At(point) = death {
        // Whoever was running has nothing to do, and so passes no point.
        deployment.end(Role::Compute, Signal::TERM).await;
        let (compute, is_ready) = deployment.builder(Role::Compute).env("EDD_FAIL_POINT", point).launch().await;
        assert!(is_ready, "it dies when a container is made, not before");
        deployment.run(Role::Compute, compute);
    }
    deployment.process(Role::Compute).may_exit();
    let homes = deployment.process(Role::Compute).path("data/containers");
    let before = names(&homes);
    {
        let tenant = Tenant { gateway: deployment.gateway(), user: user.clone() };
        tenant.until_known().await;
        // It may die before it has answered.
        let wanted = json!({"name": "x", "ssh_enabled": false});
        let answer = tenant.ask("POST /compute/containers", &wanted).await;
        assert!([200, 502].contains(&answer.status), "{}: {}", answer.status, answer.text());
    }
    if matches!(death, Death::OnceTheDirectoryIsThere) {
        until("the directory", async || if names(&homes) == before { Err(String::new()) } else { Ok(()) }).await;
        deployment.process(Role::Compute).signal(Signal::KILL);
    }
    let ended = deployment.process(Role::Compute).wait_exit().await;
    assert_eq!(ended.signal(), Some(Signal::KILL.as_raw()), "{death:?}: it ended otherwise: {ended:?}");
    deployment.forget(Role::Compute);
    deployment.start_one(Role::Compute).await;
    let tenant = Tenant { gateway: deployment.gateway(), user };
    tenant.until_known().await;
    let listed = tenant.done("GET /compute/containers", Value::Null).await;
    let listed = listed["containers"].as_array().expect("a list").clone();
    if matches!(death, Death::At("publisher.added")) {
        assert_eq!(listed, [Value::Null; 0], "it died before the commit");
        assert_eq!(names(&homes), before, "and left nothing behind");
        return;
    }
    let [container] = listed.as_slice() else { panic!("one container: {listed:?}") };
    let text = |field: &str| container[field].as_str().expect("text").to_owned();
    let made = Made { id: text("id"), host: text("hostname") };
    tenant.until_status(&made.id, "running").await;
    assert!(tenant.until_web(&made.host, 200).await.text().contains(&made.id));
    assert_eq!(processes(&made.id, Some("page")).len(), 1, "{death:?}: it runs once");
    assert_eq!(happenings(deployment, &made.id).await, ["created", "ip_assigned", "started"], "{death:?}");
    tenant.done(&format!("DELETE /compute/containers/{}", made.id), Value::Null).await;
    tenant.until_web(&made.host, 404).await;
    until("nothing to be left", async || match traces(&made.id) {
        left if left.is_empty() && names(&homes) == before => Ok(()),
        left => Err(format!("{left:?}, {:?}", names(&homes))),
    })
    .await;
}

/// The containers that the platform has in `dir`, and those that it is about to remove.
fn names(dir: &Path) -> Vec<String> {
    let entries = [dir.to_owned(), dir.join("trash")].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
    let names = entries.flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !["lock", "trash"].contains(&name.as_str())).collect();
    names.sort();
    names
}

/// What compute told of a container, in order.
async fn happenings(deployment: &Deployment, id: &str) -> Vec<String> {
    let compute = Database::attach(deployment.database("compute")).await.expect("compute's database");
    let select = sqlx::query("SELECT subject FROM outbox WHERE entity = $1 ORDER BY version LIMIT 100");
    let rows = select.bind(format!("compute.container.{id}")).fetch_all(compute.reader()).await.expect("rows");
    compute.close().await;
    let last = |subject: String| subject.rsplit('.').next().unwrap_or_default().to_owned();
    rows.iter().map(|row| last(row.get::<String, _>("subject"))).collect()
}

/// Nobody is there whom the gateway could ask, and it starts: containers and ports answer as they did, and it says how
/// old that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_alone_serves_what_was_last_known() {
    let (nats, postgres) = (Nats::start(), Postgres::start(Settings::default()));
    let port = port::free();
    let mut deployment = Deployment::separate(&nats, &postgres);
    deployment.set_all("EDD_DYNAMIC_PORTS", &format!("{port}-{port}"));
    deployment.start().await;
    let ann = tenant(&deployment).await;
    let (web, gone) = tokio::join!(ann.run("web"), ann.run("gone"));
    ann.done(&format!("POST /compute/containers/{}/ingress", web.id), json!({"port": port, "target_port": 80})).await;
    ann.done(&format!("DELETE /compute/containers/{}", gone.id), Value::Null).await;
    ann.until_web(&gone.host, 404).await;
    let at_port = SocketAddr::from(([127, 0, 0, 1], port));
    let by_port = async || match ask(at_port, "GET /", &web.host, &[], &Value::Null).await {
        Ok(answer) if answer.status == 200 && answer.text().contains(&web.id) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("the port to answer", by_port).await;
    let (user, file) = (ann.user.clone(), deployment.gateway().path("data/containers.jsonl"));
    until("what is known to be on disk", async || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let has = text.contains(&web.id) && text.contains(&port.to_string()) && text.contains("\"gone\"");
        if has { Ok(()) } else { Err(text) }
    })
    .await;

    // Containers outlive a compute that is killed.
    deployment.end(Role::Compute, Signal::KILL).await;
    deployment.end(Role::Gateway, Signal::KILL).await;
    nats.kill9();
    postgres.kill9();
    deployment.start_one(Role::Gateway).await;
    {
        let ann = Tenant { gateway: deployment.gateway(), user: user.clone() };
        assert!(ann.until_web(&web.host, 200).await.text().contains(&web.id));
        assert_eq!(ann.web(&gone.host).await.status, 404, "what was deleted stays deleted");
        assert_eq!(ann.web("aaaaaaaaaa.compute.cloud.localhost").await.status, 404);
        until("the port to answer", by_port).await;
        let verbose = ann.gateway.admin("/readyz?verbose").await;
        assert_eq!(verbose.status, 200, "it serves: {}", verbose.text());
        let line = verbose.text().lines().find(|line| line.contains("containers:")).unwrap_or_default().to_owned();
        assert!(line.contains("1 containers, 1 ports, as compute told by 20"), "{}", verbose.text());
        assert!(line.contains("the database is away"), "{}", verbose.text());
    }

    nats.restart();
    postgres.restart();
    deployment.start_one(Role::Compute).await;
    let ann = Tenant { gateway: deployment.gateway(), user };
    ann.until_known().await;
    ann.done(&format!("POST /compute/containers/{}/stop", web.id), Value::Null).await;
    ann.until_web(&web.host, 503).await;
    ann.done(&format!("DELETE /compute/containers/{}", web.id), Value::Null).await;
    ann.until_web(&web.host, 404).await;
    deployment.stop().await;
}

/// Writes a running container as compute's events would have left it.
async fn insert(database: &Database, id: &str, owner: &str, address: SocketAddr) {
    let insert = sqlx::query(
        "INSERT INTO containers (container_id, user_id, name, status, address, http_port, ssh_port, ssh_enabled, \
         https_enabled, redirect_to_https, ssh_keys_restricted, ssh_key_ids, ssh_host_key_fingerprint, version, \
         deleted, synced_at, round) VALUES ($1, $2, 'x', $3, $4, $5, 0, 0, 1, 0, 0, '', '', 1, 0, 0, 0)",
    );
    let running = i64::from(i32::from(edd_proto::compute::ContainerStatus::Running));
    let insert = insert.bind(id.to_owned()).bind(owner.to_owned()).bind(running);
    let insert = insert.bind(address.ip().to_string()).bind(i64::from(address.port()));
    insert.execute(database.writer()).await.expect("a row");
}

/// A container that sends more than it was asked for, so that the rest waits for whoever comes next on the connection.
/// Worst case: another tenant's container has had the very same address.
#[tokio::test]
async fn a_poisoned_answer_reaches_no_other_tenant() {
    const EVIL: &str = "evilevil01";
    const GOOD: &str = "goodgood01";
    let host = |id: &str| format!("{id}.compute.cloud.localhost");
    let upstream = RawUpstream::start(|mut connection| async move {
        while let Some(head) = connection.head().await {
            if head.starts_with("POST") {
                connection.body(1).await;
            }
            let (page, is_poisoned) = (if head.contains(EVIL) { "evil" } else { "good" }, head.contains("/poison "));
            let poison = "HTTP/1.1 200 OK\r\nSet-Cookie: stolen=1\r\nContent-Length: 6\r\n\r\npoison".repeat(3);
            let poison = if is_poisoned { poison } else { String::new() };
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{page}{poison}")).await;
        }
    })
    .await;
    let nats = Nats::start();
    let builder = knowing(&nats, async |database| {
        insert(database, EVIL, "user-aaaaaaaaaaaaaaaa", upstream.address).await;
        insert(database, GOOD, "user-bbbbbbbbbbbbbbbb", upstream.address).await;
    });
    let edd: Edd = builder.await.start().await;
    let mut cases = Cases::default();
    // Each goes through another engine.
    for (method, rest) in [("GET", "\r\n"), ("POST", "Content-Length: 1\r\n\r\nx")] {
        cases
            .case(method, async {
                let mut client = edd.connect().await;
                for turn in 0..20 {
                    for (id, page, path) in
                        [(EVIL, "evil", "/"), (GOOD, "good", "/"), (EVIL, "evil", "/poison"), (GOOD, "good", "/")]
                    {
                        client.send(format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{rest}", host(id))).await;
                        let answer = client.response().await;
                        assert!(answer.header("set-cookie").is_empty(), "{turn}: {id} was told {:?}", answer.headers);
                        match answer.status {
                            200 => assert_eq!(answer.text(), page, "{turn}: {id}"),
                            status => assert_eq!((status, id), (502, EVIL), "{turn}: only its own tenant pays"),
                        }
                    }
                }
            })
            .await;
    }
    // Whatever is noticed of the poison, nobody shares a connection with another tenant in the first place.
    let connections = upstream.connections();
    assert!(connections.len() > 1 && connections.len() < 160, "{} connections: some are kept", connections.len());
    for connection in connections {
        let text = String::from_utf8_lossy(&connection.bytes).into_owned();
        assert!(!(text.contains(EVIL) && text.contains(GOOD)), "two tenants on one connection: {text}");
    }
    cases.finish();
}
