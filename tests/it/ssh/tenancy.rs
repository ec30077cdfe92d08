//! Containers that people log in to.

use std::path::Path;
use std::process::Command;

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
    let wanted = json!({"name": "box", "ssh_enabled": true});
    let (made, mut site) = container(deployment, &tenant, identity, wanted).await;
    // What the machine has, of which the image is made.
    site.offers.extend(["sftp", "tools"]);
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

/// The name of the image that [`make_plain_image`] makes.
pub const PLAIN: &str = "plain";

/// Makes an image of busybox alone in `dir`. False: this machine has none that stands on its own.
pub fn make_plain_image(dir: &Path) -> bool {
    const SCRIPT: &str = r#"
        busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1 || exit 1
        root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
        mkdir -p "$root/bin" "$root/etc" "$root/root" "$root/tmp" "$root/home/user" "$root/usr/bin"
        cp "$busybox" "$root/bin/busybox"
        for applet in $(busybox --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
        printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$root/etc/passwd"
        printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"
        chown 1000:1000 "$root/home/user"
        tar -C "$root" -czf "$0" .
    "#;
    let file = dir.join(format!("{PLAIN}.tar.gz"));
    let made = Command::new("sh").args(["-ec", SCRIPT]).arg(file).output().expect("a shell");
    if !made.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&made.stderr));
    }
    made.status.success()
}
