use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::authority::Authority;
use super::client::{Client, VERSIONS};
use super::scratch::Scratch;
use crate::certs::{CertState, CertStore, CertsConfig, ReloadReport};

/// Far below the time between two polls, far above that of an event.
const EVENT_LIMIT: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(3600);

async fn served(store: &CertStore, ca: &Authority) -> CertificateDer<'static> {
    Client::new(ca.roots(), &VERSIONS, None).connect(store, "example.com").await.unwrap().cert
}

/// Watches a store until the sender is dropped or told.
fn watching(store: &CertStore, poll: Duration) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (stop, stopped) = watch::channel(false);
    (stop, tokio::spawn(store.clone().watch_every(poll, stopped)))
}

/// Waits for a report that fits.
async fn report(reports: &mut watch::Receiver<std::sync::Arc<ReloadReport>>, fits: impl FnMut(&ReloadReport) -> bool) {
    let mut fits = fits;
    timeout(EVENT_LIMIT, reports.wait_for(|report| fits(report))).await.expect("no such report").unwrap();
}

/// Starts watching, and returns when the first look is over.
async fn settled(
    store: &CertStore,
    poll: Duration,
) -> (watch::Sender<bool>, watch::Receiver<std::sync::Arc<ReloadReport>>) {
    let mut reports = store.reports();
    reports.mark_unchanged();
    let (stop, _) = watching(store, poll);
    timeout(EVENT_LIMIT, reports.changed()).await.expect("no first look").unwrap();
    (stop, reports)
}

#[tokio::test]
async fn new_files_are_served_on_the_next_handshake() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let [old, new] = [ca.issue(&["example.com"]), ca.issue(&["example.com"])];
    dir.put_pair("site", &old);
    let store = dir.store();
    assert_eq!(served(&store, &ca).await, old.der);
    dir.put_pair("site", &new);
    assert_eq!(served(&store, &ca).await, old.der);
    let report = store.reload();
    assert_eq!(report.loaded, [dir.join("site.crt")]);
    assert_eq!(served(&store, &ca).await, new.der);
    let report = store.reload();
    assert!(!report.changes_service(), "nothing changed: {report:?}");
    assert_eq!((report.good_reloads_total, report.bad_reloads_total), (2, 0));
}

#[tokio::test]
async fn bad_files_leave_the_last_good_version_in_service() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let [old, new] = [ca.issue(&["example.com"]), ca.issue(&["example.com"])];
    dir.put_pair("site", &old);
    let store = dir.store();
    // Half of a renewal, garbage, and no file at all.
    let spoil: [&dyn Fn(); 3] = [&|| dir.put("site.key", &new.key), &|| dir.put("site.crt", "garbage"), &|| {
        fs::remove_file(dir.join("site.key")).unwrap()
    }];
    for (bad_reloads, spoil) in (1..).zip(spoil) {
        spoil();
        let report = store.reload();
        assert_eq!(report.problems.len(), 1);
        assert!(report.problems[0].in_service && !report.changes_service());
        assert_eq!(report.bad_reloads_total, bad_reloads);
        assert_eq!(store.reload().bad_reloads_total, bad_reloads, "the same problem counts once");
        assert_eq!(served(&store, &ca).await, old.der);
        let info = &store.list()[0];
        assert_eq!((info.state, info.in_service), (CertState::Error, true));
        assert_eq!(info.names, ["example.com"]);
    }
    dir.put_pair("site", &new);
    assert_eq!(store.reload().good_reloads_total, 2);
    assert_eq!(served(&store, &ca).await, new.der);
}

#[test]
fn removed_pairs_go_out_of_service_but_a_vanished_directory_keeps_all() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("certs/a", &ca.issue(&["a.example.com"]));
    dir.put_pair("certs/b", &ca.issue(&["b.example.com"]));
    let store = CertStore::open(CertsConfig { certs_dir: Some(dir.join("certs")), local_ca: None }).unwrap();
    for file in ["a.crt", "a.key"] {
        fs::remove_file(dir.join("certs").join(file)).unwrap();
    }
    assert_eq!(store.reload().removed, [dir.join("certs/a.crt")]);
    assert!(!store.covers("a.example.com") && store.covers("b.example.com"));
    fs::rename(dir.join("certs"), dir.join("moved")).unwrap();
    let report = store.reload();
    assert_eq!(report.problems[0].path, dir.join("certs"));
    assert!(store.covers("b.example.com"));
    fs::rename(dir.join("moved"), dir.join("certs")).unwrap();
    assert_eq!(store.reload().problems, []);
}

#[tokio::test]
async fn changes_are_noticed() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let certs = dir.join("certs");
    let store = CertStore::open(CertsConfig { certs_dir: Some(certs.clone()), local_ca: None }).unwrap();
    let (stop, mut reports) = settled(&store, NEVER).await;
    // The directory appears, a folder in it, a new file in that.
    for (name, pair) in
        [("a.example.com", "certs/a"), ("b.example.com", "certs/b/tls"), ("c.example.com", "certs/b/tls")]
    {
        dir.put_pair(pair, &ca.issue(&[name]));
        report(&mut reports, |report| store.covers(name) && report.problems.is_empty()).await;
    }
    fs::remove_dir_all(certs.join("b")).unwrap();
    report(&mut reports, |_| !store.covers("c.example.com")).await;
    drop(stop);
}

#[tokio::test]
async fn the_symlink_swap_of_kubernetes_is_noticed() {
    for folder in ["", "secret/"] {
        let (dir, ca) = (Scratch::new(), Authority::new("test"));
        let [old, new] = [ca.issue(&["example.com"]), ca.issue(&["example.com"])];
        dir.put_pair(&format!("{folder}..1/tls"), &old);
        symlink("..1", dir.join(folder).join("..data")).unwrap();
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), dir.join(folder).join(file)).unwrap();
        }
        let store = dir.store();
        let (_stop, mut reports) = settled(&store, NEVER).await;
        assert_eq!(served(&store, &ca).await, old.der);
        dir.put_pair(&format!("{folder}..2/tls"), &new);
        symlink("..2", dir.join(folder).join("..data_tmp")).unwrap();
        fs::rename(dir.join(folder).join("..data_tmp"), dir.join(folder).join("..data")).unwrap();
        report(&mut reports, |report| report.good_reloads_total == 2).await;
        assert_eq!(served(&store, &ca).await, new.der);
    }
}

#[tokio::test]
async fn what_sends_no_events_is_polled() {
    let (dir, elsewhere, ca) = (Scratch::new(), Scratch::new(), Authority::new("test"));
    elsewhere.put_pair("live", &ca.issue(&["old.example.com"]));
    for ending in ["crt", "key"] {
        symlink(elsewhere.join("live").with_extension(ending), dir.join("site").with_extension(ending)).unwrap();
    }
    let store = dir.store();
    let (_stop, mut reports) = settled(&store, Duration::from_millis(20)).await;
    elsewhere.put_pair("live", &ca.issue(&["new.example.com"]));
    report(&mut reports, |_| store.covers("new.example.com")).await;
}

#[tokio::test]
async fn watching_ends_when_told_or_abandoned() {
    let dir = Scratch::new();
    let store = dir.store();
    let (stop, watch) = watching(&store, NEVER);
    stop.send(true).unwrap();
    timeout(EVENT_LIMIT, watch).await.expect("still watching").unwrap();
    let (stop, watch) = watching(&store, NEVER);
    drop(stop);
    timeout(EVENT_LIMIT, watch).await.expect("still watching").unwrap();
}
