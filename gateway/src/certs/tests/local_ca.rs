use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;

use rustls::{AlertDescription, Error, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::authority::{Authority, roots};
use super::client::{Client, VERSIONS};
use super::scratch::Scratch;
use crate::certs::local_ca::LocalCa;
use crate::certs::{CertSource, CertStore, CertsConfig, CertsError, LocalCaConfig};
use crate::route::HostName;

fn config(dir: &Scratch, names: &[&str]) -> LocalCaConfig {
    let names = names.iter().map(|name| HostName::parse(name).unwrap()).collect();
    LocalCaConfig { dir: dir.join("ca"), names }
}

fn store(dir: &Scratch, names: &[&str]) -> CertStore {
    let certs_dir = Some(dir.join("certs"));
    CertStore::open(CertsConfig { certs_dir, local_ca: Some(config(dir, names)) }).unwrap()
}

fn open(dir: &Scratch, names: &[&str]) -> Result<LocalCa, CertsError> {
    LocalCa::open(&config(dir, names), OffsetDateTime::now_utc())
}

fn trusted(dir: &Scratch) -> RootCertStore {
    roots(&CertificateDer::from_pem_file(dir.join("ca/root.pem")).unwrap())
}

fn names(ca: &LocalCa, name: &str) -> Vec<String> {
    let leaf = ca.leaf(Some(name), OffsetDateTime::now_utc()).unwrap();
    leaf.facts.names.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn leafs_verify_against_the_root() {
    let dir = Scratch::new();
    let store = store(&dir, &["cloud.example.test"]);
    let long = format!("{}.{}.{}.cloud.example.test", "a".repeat(63), "b".repeat(63), "c".repeat(63));
    let longest = format!("{}.{long}", "d".repeat(253 - 1 - long.len()));
    for name in [
        "localhost",
        "app.localhost",
        "a.b.localhost",
        "cloud.example.test",
        "auth.cloud.example.test",
        "x1.compute.cloud.example.test",
        &longest,
        "127.0.0.1",
        "::1",
    ] {
        for version in VERSIONS {
            let seen = Client::new(trusted(&dir), &[version], None).connect(&store, name).await;
            assert!(seen.is_ok(), "{name} {version:?}: {:?}", seen.err());
        }
        assert!(store.covers(name), "{name}");
    }
    for name in ["example.test", "xcloud.example.test", "localhost.example.test", "notlocalhost", "example.com"] {
        let error = Client::new(trusted(&dir), &VERSIONS, None).connect(&store, name).await.err();
        assert_eq!(error, Some(Error::AlertReceived(AlertDescription::UnrecognisedName)), "{name}");
        assert!(!store.covers(name), "{name}");
    }
    assert!(!store.covers("127.0.0.2") && !store.covers("192.0.2.1"));
}

#[tokio::test]
async fn files_come_before_the_authority() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let pem = ca.issue(&["app.localhost"]);
    dir.put_pair("certs/app", &pem);
    let store = store(&dir, &[]);
    let seen = Client::new(ca.roots(), &VERSIONS, None).connect(&store, "app.localhost").await.unwrap();
    assert_eq!(seen.cert, pem.der);
    assert!(Client::new(trusted(&dir), &VERSIONS, None).connect(&store, "other.localhost").await.is_ok());
}

#[test]
fn names_below_one_parent_share_a_leaf_that_shows_none_of_them() {
    let dir = Scratch::new();
    let ca = open(&dir, &["cloud.localhost"]).unwrap();
    let now = OffsetDateTime::now_utc();
    let first = ca.leaf(Some("x1.compute.cloud.localhost"), now).unwrap();
    for name in ["x2.compute.cloud.localhost", "x1.compute.cloud.localhost"] {
        assert!(Arc::ptr_eq(&first, &ca.leaf(Some(name), now).unwrap()), "{name}");
    }
    for (name, expected) in [
        ("x1.compute.cloud.localhost", &["compute.cloud.localhost", "*.compute.cloud.localhost"][..]),
        ("compute.cloud.localhost", &["cloud.localhost", "*.cloud.localhost"]),
        ("cloud.localhost", &["cloud.localhost", "*.cloud.localhost"]),
        ("localhost", &["localhost", "127.0.0.1", "::1"]),
    ] {
        assert_eq!(names(&ca, name), expected, "{name}");
    }
}

#[test]
fn a_leaf_never_reaches_above_the_base_domain() {
    let dir = Scratch::new();
    let ca = open(&dir, &["cloud.example.test"]).unwrap();
    assert_eq!(names(&ca, "cloud.example.test"), ["cloud.example.test", "*.cloud.example.test"]);
    let now = OffsetDateTime::now_utc();
    for name in ["example.test", "other.example.test", "xcloud.example.test"] {
        assert!(ca.leaf(Some(name), now).is_none(), "{name}");
    }
}

#[test]
fn leafs_are_short_lived_and_renewed_in_their_last_third() {
    let dir = Scratch::new();
    let ca = open(&dir, &[]).unwrap();
    let start = OffsetDateTime::now_utc();
    let first = ca.leaf(Some("app.localhost"), start).unwrap();
    let life = first.facts.not_after - first.facts.not_before;
    assert_eq!(life, Duration::days(7));
    assert!((start - first.facts.not_before - Duration::HOUR).abs() < Duration::seconds(2));
    let two_thirds = first.facts.not_before + life * 2 / 3;
    let again = ca.leaf(Some("app.localhost"), two_thirds - Duration::MINUTE).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let renewed = ca.leaf(Some("app.localhost"), two_thirds + Duration::MINUTE).unwrap();
    assert!(!Arc::ptr_eq(&first, &renewed) && renewed.facts.not_after > first.facts.not_after);
    let after_clock_was_set_back = ca.leaf(Some("app.localhost"), start - Duration::DAY).unwrap();
    assert!(after_clock_was_set_back.facts.not_before < start - Duration::DAY);
    assert_eq!(ca.list(start).len(), 2, "the root and one leaf");
}

#[test]
fn ten_thousand_names_stay_within_the_bound() {
    let dir = Scratch::new();
    let ca = open(&dir, &[]).unwrap();
    let now = OffsetDateTime::now_utc();
    for number in 0..10_000 {
        assert!(ca.leaf(Some(&format!("n{number}.localhost")), now).is_some());
    }
    let list = ca.list(now);
    assert_eq!(list.len(), 1 + 1024);
    let holds = |name: &str| list.iter().any(|info| info.names.iter().any(|held| held == name));
    assert!(holds("n9999.localhost") && holds("n8976.localhost") && !holds("n8975.localhost"));
}

#[test]
fn a_renewed_leaf_is_a_new_one_to_the_bound() {
    let dir = Scratch::new();
    let ca = open(&dir, &[]).unwrap();
    let start = OffsetDateTime::now_utc();
    let later = start + Duration::days(5);
    for (name, time) in [("renewed.localhost", start), ("oldest.localhost", start), ("renewed.localhost", later)] {
        ca.leaf(Some(name), time).unwrap();
    }
    for number in 0..1023 {
        ca.leaf(Some(&format!("n{number}.localhost")), later).unwrap();
    }
    let held: Vec<_> = ca.list(later).into_iter().skip(1).map(|info| info.names[0].clone()).collect();
    assert_eq!(held.len(), 1024);
    assert!(held.contains(&"renewed.localhost".to_owned()) && !held.contains(&"oldest.localhost".to_owned()));
}

#[test]
fn a_rush_on_one_name_signs_once() {
    let dir = Scratch::new();
    let ca = open(&dir, &[]).unwrap();
    let now = OffsetDateTime::now_utc();
    let leafs: Vec<_> = thread::scope(|scope| {
        let rush: Vec<_> = (0..8).map(|_| scope.spawn(|| ca.leaf(Some("app.localhost"), now).unwrap())).collect();
        rush.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(leafs.iter().all(|leaf| Arc::ptr_eq(leaf, &leafs[0])));
}

#[test]
fn the_authority_is_made_once_and_kept() {
    let dir = Scratch::new();
    open(&dir, &["cloud.localhost"]).unwrap();
    let mode = |file: &str| fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca"), mode("ca/root.key"), mode("ca/root.pem")), (0o700, 0o600, 0o644));
    assert_eq!(fs::read_dir(&*dir).unwrap().count(), 1, "no draft is left");
    let root = fs::read(dir.join("ca/root.pem")).unwrap();
    open(&dir, &["cloud.localhost"]).unwrap();
    assert_eq!(fs::read(dir.join("ca/root.pem")).unwrap(), root);
}

#[test]
fn processes_that_start_at_once_agree_on_one_authority() {
    let dir = Scratch::new();
    let roots: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&dir, &[]).unwrap())).collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap().list(OffsetDateTime::now_utc())[0].sha256.clone())
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    assert_eq!(fs::read_dir(&*dir).unwrap().count(), 1, "no draft is left");
}

#[test]
fn bad_authority_files_are_an_error_with_a_hint_and_are_left_alone() {
    let other = Scratch::new();
    open(&other, &[]).unwrap();
    let leaf = Authority::new("test").issue(&["localhost"]);
    let foreign_key = fs::read_to_string(other.join("ca/root.key")).unwrap();
    for (file, content, expected) in [
        ("root.pem", Some("garbage"), "it is no PEM certificate"),
        ("root.key", Some("garbage"), "it is no PEM private key"),
        ("root.pem", None, "it cannot be read"),
        ("root.key", None, "it cannot be read"),
        ("root.key", Some(&*foreign_key), "`root.key` is not its key"),
        ("root.pem", Some(&*leaf.cert), "it is no certificate authority"),
    ] {
        let dir = Scratch::new();
        open(&dir, &[]).unwrap();
        let path = dir.join("ca").join(file);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let message = open(&dir, &[]).err().expect("it opens").to_string();
        assert!(message.contains(file) && message.contains(expected), "{message}");
        assert!(message.contains("restore it from a backup, or move"), "{message}");
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), content, "{file} was touched");
    }
}

#[test]
fn a_base_domain_that_the_root_may_not_sign_for_is_an_error() {
    let dir = Scratch::new();
    open(&dir, &["cloud.example.test"]).unwrap();
    open(&dir, &["deeper.cloud.example.test"]).unwrap();
    let message = open(&dir, &["cloud.example.org"]).err().expect("it opens").to_string();
    assert!(message.contains("for localhost, cloud.example.test only, not for `cloud.example.org`"), "{message}");
    let error = open(&Scratch::new(), &["192.0.2.1"]).err().expect("it opens");
    assert!(matches!(error, CertsError::LocalName(_)), "{error}");
}

#[test]
fn an_expired_root_is_an_error() {
    let dir = Scratch::new();
    open(&dir, &[]).unwrap();
    let later = OffsetDateTime::now_utc() + Duration::days(3653);
    let message = LocalCa::open(&config(&dir, &[]), later).err().expect("it opens").to_string();
    assert!(message.contains("it expired on"), "{message}");
}

#[test]
fn the_root_is_constrained_to_local_names() {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let dir = Scratch::new();
    let ca = open(&dir, &["app.cloud.example.test", "cloud.example.test", "app.localhost"]).unwrap();
    let der = CertificateDer::from_pem_file(dir.join("ca/root.pem")).unwrap();
    let (_, root) = X509Certificate::from_der(&der).unwrap();
    let constraints = root.name_constraints().unwrap().unwrap();
    assert!(constraints.critical);
    let permitted = constraints.value.permitted_subtrees.as_ref().unwrap();
    let permitted: Vec<_> = permitted.iter().map(|subtree| subtree.base.to_string()).collect();
    assert_eq!(permitted.len(), 4, "{permitted:?}");
    let now = OffsetDateTime::now_utc();
    let info = &ca.list(now)[0];
    assert_eq!(info.names, ["localhost", "cloud.example.test"]);
    assert_eq!(info.source, CertSource::LocalRoot(dir.join("ca/root.pem")));
}
