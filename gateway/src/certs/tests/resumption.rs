use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::authority::Authority;
use super::client::Client;
use super::scratch::Scratch;

#[tokio::test]
async fn sessions_resume_in_both_versions() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["example.com"]));
    let store = dir.store();
    for (client, version) in [
        (Client::new(ca.roots(), &[&TLS13], None), ProtocolVersion::TLSv1_3),
        (Client::new(ca.roots(), &[&TLS12], None), ProtocolVersion::TLSv1_2),
        (Client::new(ca.roots(), &[&TLS12], None).by_session_id(), ProtocolVersion::TLSv1_2),
    ] {
        for resumed in [false, true, true] {
            let seen = client.connect(&store, "example.com").await.unwrap();
            assert_eq!((seen.version, seen.resumed), (version, resumed));
        }
    }
}

#[tokio::test]
async fn sessions_outlive_a_reload() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["example.com"]));
    let store = dir.store();
    for version in [&TLS12, &TLS13] {
        let client = Client::new(ca.roots(), &[version], None);
        client.connect(&store, "example.com").await.unwrap();
        dir.put_pair("site", &ca.issue(&["example.com"]));
        assert!(store.reload().changes_service());
        assert!(client.connect(&store, "example.com").await.unwrap().resumed, "{version:?}");
    }
}
