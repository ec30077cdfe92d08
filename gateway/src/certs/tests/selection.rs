use rustls::{AlertDescription, Error};
use rustls_pki_types::CertificateDer;
use time::Duration;

use super::authority::Authority;
use super::client::{Client, VERSIONS};
use super::scratch::Scratch;
use crate::certs::{CertState, CertStore};

async fn served(store: &CertStore, ca: &Authority, name: &str) -> Result<CertificateDer<'static>, Error> {
    Client::new(ca.roots(), &VERSIONS, None).connect(store, name).await.map(|seen| seen.cert)
}

#[tokio::test]
async fn name_chooses_the_certificate() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let [a, b] = [ca.issue(&["a.example.com", "b.example.com"]), ca.issue(&["*.example.com"])];
    dir.put_pair("a", &a);
    dir.put_pair("b", &b);
    let store = dir.store();
    for (name, cert) in [
        ("a.example.com", &a),
        ("A.Example.COM", &a),
        ("b.example.com", &a),
        ("c.example.com", &b),
        ("xn--bcher-kva.example.com", &b),
    ] {
        assert_eq!(served(&store, &ca, name).await.unwrap(), cert.der, "{name}");
        assert!(store.covers(name), "{name}");
    }
}

#[tokio::test]
async fn unknown_names_see_unrecognized_name_in_both_versions() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["*.example.com", "127.0.0.9"]));
    let store = dir.store();
    // A wildcard stands for one label, no more and no less.
    for name in ["example.com", "a.b.example.com", "example.org", "aexample.com"] {
        assert!(!store.covers(name), "{name}");
        for version in VERSIONS {
            let error = Client::new(ca.roots(), &[version], None).connect(&store, name).await.err().unwrap();
            assert_eq!(error, Error::AlertReceived(AlertDescription::UnrecognisedName), "{name} {version:?}");
        }
    }
}

#[tokio::test]
async fn clients_without_a_name_get_the_certificate_with_an_address() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["example.com"]));
    let store = dir.store();
    let refused = Error::AlertReceived(AlertDescription::UnrecognisedName);
    assert_eq!(served(&store, &ca, "192.0.2.7").await.unwrap_err(), refused);
    let with_address = ca.issue(&["192.0.2.7", "2001:db8::7"]);
    dir.put_pair("address", &with_address);
    store.reload();
    for ip in ["192.0.2.7", "2001:db8::7"] {
        assert_eq!(served(&store, &ca, ip).await.unwrap(), with_address.der);
        assert!(store.covers(ip));
    }
    assert!(store.covers("[2001:db8::7]") && !store.covers("192.0.2.8"));
}

#[tokio::test]
async fn longest_valid_wins_whatever_the_order_of_files() {
    for (first, second) in [(40, 50), (50, 40)] {
        let (dir, ca) = (Scratch::new(), Authority::new("test"));
        let pems = [first, second].map(|days| ca.issue_until(&["example.com", "*.example.com"], Duration::days(days)));
        dir.put_pair("1", &pems[0]);
        dir.put_pair("2", &pems[1]);
        let store = dir.store();
        for name in ["example.com", "www.example.com"] {
            assert_eq!(served(&store, &ca, name).await.unwrap(), pems[usize::from(first < second)].der, "{name}");
        }
    }
}

#[tokio::test]
async fn of_several_with_an_address_the_longest_valid_serves_clients_without_a_name() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let pems = [20, 60, 40].map(|days| ca.issue_until(&[&format!("192.0.2.{days}")], Duration::days(days)));
    for (number, pem) in pems.iter().enumerate() {
        dir.put_pair(&number.to_string(), pem);
    }
    assert_eq!(served(&dir.store(), &ca, "192.0.2.60").await.unwrap(), pems[1].der);
}

#[tokio::test]
async fn exact_beats_a_wildcard_that_is_valid_longer() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    let exact = ca.issue_until(&["www.example.com"], Duration::days(20));
    dir.put_pair("exact", &exact);
    dir.put_pair("wildcard", &ca.issue_until(&["*.example.com"], Duration::days(80)));
    assert_eq!(served(&dir.store(), &ca, "www.example.com").await.unwrap(), exact.der);
}

#[tokio::test]
async fn expired_is_served_and_said() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("old", &ca.issue_until(&["example.com"], -Duration::DAY));
    let store = dir.store();
    let error = served(&store, &ca, "example.com").await.unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(rustls::CertificateError::ExpiredContext { .. })), "{error}");
    let report = store.reports().borrow().clone();
    assert_eq!((report.problems.len(), report.warnings.len()), (0, 1));
    assert!(report.warnings[0].message.starts_with("expired on "), "{}", report.warnings[0].message);
    let info = &store.list()[0];
    assert_eq!((info.state, info.in_service), (CertState::Expired, true));
}

#[tokio::test]
async fn alpn_offers_h2_and_http_1_1() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["example.com"]));
    let store = dir.store();
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let client = Client::new(ca.roots(), &VERSIONS, None).with_alpn(protocol);
        assert_eq!(client.connect(&store, "example.com").await.unwrap().alpn.unwrap(), protocol);
    }
    let error = Client::new(ca.roots(), &VERSIONS, None).with_alpn(b"h3").connect(&store, "example.com").await.err();
    assert_eq!(error, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
}

#[test]
fn list_tells_what_a_certificate_is() {
    let (dir, ca) = (Scratch::new(), Authority::new("Test Authority"));
    let pem = ca.issue(&["example.com", "*.example.com", "192.0.2.7"]);
    dir.put_pair("site", &pem);
    let list = dir.store().list();
    let [info] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(info.names, ["example.com", "*.example.com", "192.0.2.7"]);
    assert!(info.issuer.as_ref().unwrap().contains("Test Authority"));
    assert_eq!(info.key_type.as_deref(), Some("ECDSA P-256"));
    assert_eq!(info.sha256.as_ref().unwrap().len(), 64);
    assert_eq!((info.state, info.message.as_deref()), (CertState::Ok, None));
}
