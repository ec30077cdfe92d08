//! SSH into containers, with the clients that people have. What they do is in `ssh/cases/`, one script each, and each
//! holds with OpenSSH's own server, too.

mod faults;
mod matrix;
mod revocation;
mod site;
mod tenancy;
mod transfer;
mod who;

use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use edd_servers::sshd::Sshd;
use rustix::process::Signal;
use serde_json::json;

use self::site::{Identity, Site};
use crate::harness::{Deployment, Role, Workdir, is_full_run};

/// What is asked of the gateway is what OpenSSH does itself. Part of a full run.
#[tokio::test(flavor = "multi_thread")]
async fn the_cases_hold_with_openssh_itself() {
    if !is_full_run() {
        return;
    }
    let identity = Identity::new();
    let sshd = Sshd::start(&identity.public());
    let me = std::process::Command::new("id").arg("-un").output().expect("id, of coreutils");
    let mut site = Site::new(identity, sshd.port(), String::from_utf8_lossy(&me.stdout).trim());
    site.there = sshd.folder().join("there").display().to_string();
    std::fs::create_dir(&site.there).expect("the folder takes another");
    site.offers = vec!["sshd", "sftp", "tools"];
    matrix::run(site.configure()).await;
}

/// Every client that people have, into one container.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_works() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (_tenant, _, site, _) = tenancy::newcomer(&deployment).await;
    // Who jumps shows the container's own server a key that it knows.
    let authorize = "mkdir -p -m 700 ~/.ssh && cat >>~/.ssh/authorized_keys";
    site.ssh(&["gw", authorize]).stdin(site.public() + "\n").run().await.ok();
    matrix::run(site).await;
    deployment.stop().await;
}

/// The same as far as a shell goes, where the container has no SSH server: the platform runs what is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn clients_work_without_a_server_in_the_container() {
    let data = Workdir::new();
    if !tenancy::make_plain_image(&data.dir("images")) {
        eprintln!("left out: no static busybox here, of which an image could be made (Debian package: busybox-static)");
        return;
    }
    let mut deployment = Deployment::single_in(data.path());
    deployment.start().await;
    let tenant = tenancy::tenant(&deployment).await;
    let identity = Identity::new();
    tenancy::register(&tenant, &identity).await;
    let wanted = json!({"name": "plain", "ssh_enabled": true, "image": tenancy::PLAIN});
    let (_, site) = tenancy::container(&deployment, &tenant, identity, wanted).await;
    assert!(!site.offers.contains(&"sshd"), "it has none");
    matrix::run(site).await;
    deployment.stop().await;
}

/// A process for each service: gateways run sessions by compute's API where containers have no server that lets them in,
/// and speak to those that have.
#[tokio::test(flavor = "multi_thread")]
async fn clients_work_with_separate_processes() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    let authority = deployment.process(Role::Gateway).path("data/ssh/user_ca.pub");
    {
        let (_tenant, _, site, _) = tenancy::newcomer(&deployment).await;
        assert!(!site.offers.contains(&"sshd"), "nobody has told compute whom to trust");
        matrix::run(site).await;
    }
    deployment.set(Role::Compute, "EDD_SSH_USER_CA_FILE", authority.to_str().expect("a plain name"));
    deployment.set(Role::Compute, "EDD_SSH_PUBLIC_PORT", "2022");
    deployment.end(Role::Compute, Signal::TERM).await;
    deployment.start_one(Role::Compute).await;
    let (tenant, made, site, _) = tenancy::newcomer(&deployment).await;
    assert_eq!(tenant.container(&made.id).await["ssh_command"], format!("ssh -p 2022 {}@127.0.0.1", made.id));
    // By that server, if this machine can give it one.
    assert_eq!(site.ssh(&["gw", "echo in"]).run().await.ok(), "in\n");
    eprintln!("with a server of the container's own: {}", site.offers.contains(&"sshd"));
    deployment.stop().await;
}
