//! What an operator sees of sessions, and the end that they can make of one.

use rustix::process::Signal;

use super::tenancy::newcomer;
use super::transfer::Transfer;
use crate::harness::{Deployment, LogLine, Role};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_and_ended() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let ((ann, hers, site, _), (_bob, his, other_site, _)) = tokio::join!(newcomer(&deployment), newcomer(&deployment));
    let (mut transfer, mut other) = tokio::join!(Transfer::begin(&site), Transfer::begin(&other_site));
    let gateway = deployment.gateway();
    let list = async |arguments: &[&str]| {
        let all = [&["sessions", "list", "--json"], arguments].concat();
        gateway.verb(&all).run().await.json()["sessions"].as_array().expect("a list").clone()
    };
    assert_eq!(list(&[]).await.len(), 2);
    let listed = list(&["--container", &hers.id]).await;
    let [session] = listed.as_slice() else { panic!("one session: {listed:?}") };
    assert_eq!((session["user"].as_str(), session["login"].as_str()), (Some(&*ann.user.id), Some(&*hers.id)));
    assert_eq!(session["peer"], "127.0.0.1");
    assert!(session["bytes_out"].as_u64() > Some(1 << 20), "{session}");
    let table = gateway.verb(&["sessions", "list"]).run().await;
    assert!(table.ok().contains(&hers.id) && table.ok().contains(&his.id), "{table:?}");

    let id = session["id"].as_str().expect("an id");
    gateway.verb(&["sessions", "kill", id]).run().await.ok();
    transfer.ends_at_once("an operator's order", site.port, false).await;
    assert!(other.is_running(), "somebody else's ended, too");
    assert_eq!(gateway.verb(&["sessions", "kill", id]).run().await.code, Some(1), "it has ended");
    // It may log in again.
    site.until_login().await;
    other.freeze();
    gateway.verb(&["sessions", "kill", "--container", &his.id]).run().await.ok();
    other.ends_at_once("an operator's order", site.port, true).await;

    // What is left of them: lines and figures.
    let of_hers = |line: &LogLine, event: &str| line.field("event") == event && line.field("container") == hers.id;
    for event in ["ssh_login", "ssh_channel", "ssh_end"] {
        gateway.wait_log(event, |line| of_hers(line, event)).await;
    }
    let end = gateway.wait_log("the end", |line| of_hers(line, "ssh_end") && line.field("reason") == "killed").await;
    assert!(end.json["bytes_out"].as_u64() > Some(1 << 20) && end.json["duration_ms"].is_u64(), "{}", end.text);
    assert_eq!((end.field("session"), end.field("user")), (id.to_owned(), ann.user.id.clone()));
    let refused = site.ssh(&["-o", "PreferredAuthentications=publickey", "nobody@gw", "true"]).run().await;
    assert_eq!(refused.code, Some(255), "{refused:?}");
    gateway.wait_log("a refusal", |line| line.field("event") == "ssh_refused" && line.field("login") == "nobody").await;
    let metrics = gateway.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels).unwrap_or_default();
    assert!(value("edd_ssh_sessions_total", &[("result", "admitted")]) >= 4.0);
    assert!(value("edd_ssh_sessions_total", &[("result", "refused")]) >= 1.0);
    assert!(value("edd_ssh_bytes_total", &[("direction", "to_client")]) > f64::from(2 << 20));
    drop((transfer, other));
    deployment.end(Role::Up, Signal::TERM).await;
}
