//! SSH into containers, with the clients that people have. What they do is in `ssh/cases/`, one script each, and each
//! holds with OpenSSH's own server, too.

mod matrix;
mod site;

use edd_servers::sshd::Sshd;

use self::site::{Identity, Site};
use crate::harness::is_full_run;

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
    site.offers = vec!["sshd"];
    matrix::run(site.configure()).await;
}
