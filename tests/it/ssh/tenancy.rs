//! Containers that people log in to.

use edd_events::database::Database;
use serde_json::{Value, json};

use super::site::{Identity, Site};
use crate::harness::{Deployment, Made, Tenant};

/// Registers a key: its number.
pub async fn register(tenant: &Tenant<'_>, identity: &Identity) -> i64 {
    let key = json!({"name": "laptop", "public_key": identity.public()});
    let made = tenant.done("POST /compute/ssh-keys", key).await;
    made["id"].as_i64().unwrap_or_else(|| panic!("no id in {made}"))
}

/// Somebody new, who has not come by yet.
pub async fn tenant(deployment: &Deployment) -> Tenant<'_> {
    let tenant = Tenant { gateway: deployment.gateway(), user: deployment.register().await };
    tenant.until_known().await;
    tenant
}

/// A container as `wanted`, that `identity`, whose key is registered, logs in to.
pub async fn container(
    deployment: &Deployment,
    tenant: &Tenant<'_>,
    identity: Identity,
    wanted: Value,
) -> (Made, Site) {
    let made = tenant.create(wanted).await;
    tenant.until_status(&made.id, "running").await;
    let mut site = Site::new(identity, tenant.gateway.ssh.port(), &made.id);
    site.user_login = format!("user.{}", made.id);
    site.there = "/root".to_owned();
    site.jump = "jump";
    site.inner = (made.id.clone(), 22, "root".to_owned());
    site.offers.push("edd");
    if has_server(deployment, &made.id).await {
        site.offers.push("sshd");
    }
    let site = site.configure();
    site.until_login().await;
    (made, site)
}

/// Somebody new with a container: what they log in with is registered.
pub async fn newcomer(deployment: &Deployment) -> (Tenant<'_>, Made, Site, i64) {
    let (tenant, identity) = (tenant(deployment).await, Identity::new());
    let key = register(&tenant, &identity).await;
    let (made, site) = container(deployment, &tenant, identity, json!({"name": "box", "ssh_enabled": true})).await;
    (tenant, made, site, key)
}

/// Whether a container has an SSH server of its own: not every machine can give it one.
async fn has_server(deployment: &Deployment, id: &str) -> bool {
    let compute = Database::attach(deployment.database("compute")).await.expect("compute's database");
    let select = sqlx::query_scalar::<_, i64>("SELECT ssh_port FROM containers WHERE id = $1").bind(id);
    let port = select.fetch_one(compute.reader()).await.expect("a row");
    compute.close().await;
    port > 0
}
