//! Containers as a new user meets them: created by the API, answered for by the gateway a moment later, with nobody
//! editing a file.

use std::net::SocketAddr;

use edd_servers::nats::Nats;
use edd_servers::port;
use edd_servers::postgres::Postgres;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Deployment, Made, Role, Tenant, ask, until};

/// From the first container to its end, as the README tells it.
async fn walk(mut deployment: Deployment) {
    let port = port::free();
    deployment.set_all("EDD_DYNAMIC_PORTS", &format!("{port}-{port}"));
    deployment.start().await;
    let user = deployment.register().await;
    let tenant = Tenant { gateway: deployment.gateway(), user };

    tenant.until_known().await;
    let Made { id, host } = tenant.create(json!({"name": "blog", "ssh_enabled": false})).await;
    assert_eq!(host, format!("{id}.compute.cloud.localhost"));
    tenant.until_status(&id, "running").await;
    let page = tenant.until_web(&host, 200).await;
    assert!(page.text().contains(&id), "a page that names its container: {}", page.text());
    let listed = tenant.done("GET /compute/containers", Value::Null).await;
    assert_eq!(listed["containers"].as_array().map(Vec::len), Some(1), "{listed}");

    // A port of its own, by the same name.
    let rules = format!("/compute/containers/{id}/ingress");
    tenant.done(&format!("POST {rules}"), json!({"port": port, "target_port": 80})).await;
    let at_port = SocketAddr::from(([127, 0, 0, 1], port));
    until("the port to answer", async || match ask(at_port, "GET /", &host, &[], &Value::Null).await {
        Ok(answer) if answer.status == 200 && answer.text().contains(&id) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let refused = tenant.ask(&format!("POST {rules}"), &json!({"port": 79, "target_port": 80})).await;
    assert_eq!(refused.status, 400, "{}", refused.text());

    // Asleep, until a request wakes it.
    tenant.done(&format!("POST /compute/containers/{id}/hibernate"), Value::Null).await;
    tenant.until_status(&id, "hibernated").await;
    let woken = tenant.until_web(&host, 200).await;
    assert!(woken.text().contains(&id), "{}", woken.text());
    tenant.until_status(&id, "running").await;

    tenant.done(&format!("POST /compute/containers/{id}/stop"), Value::Null).await;
    tenant.until_status(&id, "stopped").await;
    tenant.until_web(&host, 503).await;
    tenant.done(&format!("POST /compute/containers/{id}/start"), Value::Null).await;
    tenant.until_web(&host, 200).await;

    tenant.done(&format!("DELETE /compute/containers/{id}"), Value::Null).await;
    tenant.until_web(&host, 404).await;
    until("the port to be closed", async || match ask(at_port, "GET /", &host, &[], &Value::Null).await {
        Err(_) => Ok(()),
        Ok(answer) => Err(answer.text().to_owned()),
    })
    .await;
    tenant.until_gone(&id).await;
    deployment.stop().await;
}

#[tokio::test]
async fn a_container_from_its_creation_to_its_end_on_one_machine() {
    walk(Deployment::single()).await;
}

#[tokio::test]
async fn a_container_from_its_creation_to_its_end_on_nats_and_postgres() {
    let (nats, postgres) = (Nats::start(), Postgres::shared());
    walk(Deployment::separate(&nats, postgres)).await;
}

#[tokio::test]
async fn a_container_from_its_creation_to_its_end_on_nats_and_sqlite() {
    let nats = Nats::start();
    let mut deployment = Deployment::single();
    deployment.set_all("NATS_URL", &nats.url());
    walk(deployment).await;
}

#[tokio::test]
async fn a_container_from_its_creation_to_its_end_on_its_own_bus_and_postgres() {
    let mut deployment = Deployment::single();
    for service in ["AUTH", "SFS", "COMPUTE", "GATEWAY"] {
        deployment.set_all(&format!("{service}_DATABASE_URL"), &Postgres::shared().database());
    }
    walk(deployment).await;
}

/// Two tenants see nothing of one another.
#[tokio::test]
async fn a_strangers_container_is_one_that_does_not_exist() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (ann, bob) = (deployment.register().await, deployment.register().await);
    let ann = Tenant { gateway: deployment.gateway(), user: ann };
    let bob = Tenant { gateway: deployment.gateway(), user: bob };
    let Made { id, .. } = ann.create(json!({"name": "hers", "ssh_enabled": false})).await;
    for request in [
        format!("GET /compute/containers/{id}"),
        format!("DELETE /compute/containers/{id}"),
        format!("POST /compute/containers/{id}/stop"),
        format!("GET /compute/containers/{id}/ingress"),
        format!("PUT /compute/containers/{id}/https"),
    ] {
        let body = if request.starts_with("PUT") { json!({"https_enabled": false}) } else { Value::Null };
        let answer = bob.ask(&request, &body).await;
        assert_eq!(answer.status, 404, "{request}: {}", answer.text());
    }
    let listed = bob.done("GET /compute/containers", Value::Null).await;
    assert_eq!(listed["containers"], json!([]));
    ann.until_status(&id, "running").await;
    ann.done(&format!("DELETE /compute/containers/{id}"), Value::Null).await;
    deployment.end(Role::Up, Signal::TERM).await;
}
