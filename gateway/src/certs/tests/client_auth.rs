use rustls::version::TLS12;
use rustls::{AlertDescription, Error};

use super::authority::{Authority, Pem};
use super::client::{Client, VERSIONS};
use super::scratch::Scratch;
use crate::certs::{CertStore, CertsError};
use crate::route::{ClientAuth, HostName, HostPattern};

struct Setup {
    dir: Scratch,
    ca: Authority,
    clients: Authority,
    store: CertStore,
}

fn setup() -> Setup {
    let (dir, ca, clients) = (Scratch::new(), Authority::new("servers"), Authority::new("clients"));
    dir.put_pair("certs/site", &ca.issue(&["example.com", "*.example.com", "*.deep.example.com"]));
    dir.put("clients.pem", clients.pem());
    let config = crate::certs::CertsConfig { certs_dir: Some(dir.join("certs")), local_ca: None };
    Setup { store: CertStore::open(config).unwrap(), dir, ca, clients }
}

impl Setup {
    fn ask(&self, host: &str, required: bool) -> (HostPattern, Option<ClientAuth>) {
        let ca_file = self.dir.join("clients.pem");
        (HostPattern::parse(host).unwrap(), Some(ClientAuth { ca_file, required }))
    }

    fn clients(&self, identity: Option<&Pem>) -> [Client; 2] {
        VERSIONS.map(|version| Client::new(self.ca.roots(), &[version], identity))
    }

    /// Whether the server knew the client, in both versions.
    async fn known(&self, host: &str, identity: Option<&Pem>) -> Result<bool, Error> {
        let mut known = Vec::new();
        for client in self.clients(identity) {
            known.push(client.connect(&self.store, host).await?.client_known);
        }
        assert_eq!(known[0], known[1]);
        Ok(known[0])
    }
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[tokio::test]
async fn a_required_certificate_must_be_there_and_good() {
    let setup = setup();
    setup.store.set_client_auth(vec![setup.ask("a.example.com", true)]).unwrap();
    let (good, stranger) = (setup.clients.issue(&["me"]), Authority::new("strangers").issue(&["me"]));
    assert_eq!(setup.known("a.example.com", Some(&good)).await, Ok(true));
    for client in setup.clients(None) {
        let error = client.connect(&setup.store, "a.example.com").await.err();
        assert_eq!(error, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
    }
    for client in setup.clients(Some(&stranger)) {
        // A client that sees that nobody knows its authority may send nothing instead.
        let error = client.connect(&setup.store, "a.example.com").await.err().unwrap();
        assert!(matches!(error, Error::AlertReceived(_)), "{error:?}");
    }
    assert_eq!(setup.known("b.example.com", None).await, Ok(false), "another host asks for nothing");
}

#[tokio::test]
async fn an_optional_certificate_may_lack_but_not_be_bad() {
    let setup = setup();
    setup.store.set_client_auth(vec![setup.ask("a.example.com", false)]).unwrap();
    let expired = setup.clients.issue_until(&["me"], -time::Duration::DAY);
    assert_eq!(setup.known("a.example.com", None).await, Ok(false));
    assert_eq!(setup.known("a.example.com", Some(&setup.clients.issue(&["me"]))).await, Ok(true));
    for client in setup.clients(Some(&expired)) {
        let error = client.connect(&setup.store, "a.example.com").await.err();
        assert_eq!(error, Some(Error::AlertReceived(AlertDescription::CertificateExpired)));
    }
}

#[tokio::test]
async fn exact_beats_the_longest_wildcard_which_beats_any() {
    let setup = setup();
    let (me, ask) = (setup.clients.issue(&["me"]), |host, required| setup.ask(host, required));
    let hosts =
        [ask("*", false), ask("*.example.com", true), ask("*.deep.example.com", false), ask("a.example.com", false)];
    setup.store.set_client_auth(hosts.into()).unwrap();
    for (host, open) in
        [("example.com", true), ("a.example.com", true), ("b.example.com", false), ("x.deep.example.com", true)]
    {
        assert_eq!(setup.known(host, None).await.is_ok(), open, "{host}");
        assert_eq!(setup.known(host, Some(&me)).await, Ok(true), "{host}");
    }
}

#[tokio::test]
async fn a_wildcard_reaches_any_number_of_labels_down() {
    let setup = setup();
    setup.store.set_client_auth(vec![setup.ask("*.example.com", true)]).unwrap();
    assert!(setup.known("x.deep.example.com", None).await.is_err());
    assert_eq!(setup.known("example.com", None).await, Ok(false));
}

#[tokio::test]
async fn a_host_of_its_own_is_not_asked_for_what_a_wildcard_asks() {
    let setup = setup();
    let open = |host: &str| (HostPattern::parse(host).unwrap(), None);
    let hosts = vec![setup.ask("*", true), open("a.example.com"), open("*.deep.example.com"), open("*.test")];
    setup.store.set_client_auth(hosts).unwrap();
    for reload in [false, true] {
        if reload {
            setup.dir.put("clients.pem", Authority::new("next").pem());
            assert_eq!(setup.store.reload().loaded, [setup.dir.join("clients.pem")]);
        }
        for (host, open) in [("a.example.com", true), ("x.deep.example.com", true), ("b.example.com", false)] {
            assert_eq!(setup.known(host, None).await.is_ok(), open, "{host}");
        }
    }
}

#[tokio::test]
async fn no_session_crosses_a_border() {
    let setup = setup();
    let borders = [
        (vec![], vec![setup.ask("a.example.com", true)]),
        (vec![setup.ask("a.example.com", false)], vec![setup.ask("a.example.com", true)]),
    ];
    for (before, after) in borders {
        for client in
            setup.clients(None).into_iter().chain([Client::new(setup.ca.roots(), &[&TLS12], None).by_session_id()])
        {
            setup.store.set_client_auth(before.clone()).unwrap();
            assert!(!client.connect(&setup.store, "a.example.com").await.unwrap().resumed);
            assert!(client.connect(&setup.store, "a.example.com").await.unwrap().resumed);
            setup.store.set_client_auth(after.clone()).unwrap();
            let error = client.connect(&setup.store, "a.example.com").await.err();
            assert_eq!(error, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
        }
    }
}

#[tokio::test]
async fn unchanged_settings_keep_their_sessions() {
    let setup = setup();
    let me = setup.clients.issue(&["me"]);
    for client in setup.clients(Some(&me)) {
        setup.store.set_client_auth(vec![setup.ask("a.example.com", true)]).unwrap();
        assert!(!client.connect(&setup.store, "a.example.com").await.unwrap().resumed);
        setup.store.set_client_auth(vec![setup.ask("b.example.com", false), setup.ask("a.example.com", true)]).unwrap();
        setup.store.reload();
        assert!(client.connect(&setup.store, "a.example.com").await.unwrap().resumed);
        setup.store.set_client_auth(Vec::new()).unwrap();
    }
}

#[tokio::test]
async fn new_authorities_come_with_a_reload_and_bad_ones_do_not() {
    let setup = setup();
    let (old, next) = (setup.clients.issue(&["me"]), Authority::new("next"));
    setup.store.set_client_auth(vec![setup.ask("a.example.com", true)]).unwrap();
    setup.dir.put("clients.pem", "garbage");
    let report = setup.store.reload();
    assert_eq!(report.problems[0].path, setup.dir.join("clients.pem"));
    assert!(report.problems[0].in_service);
    assert_eq!(setup.known("a.example.com", Some(&old)).await, Ok(true));
    setup.dir.put("clients.pem", next.pem());
    assert_eq!(setup.store.reload().loaded, [setup.dir.join("clients.pem")]);
    assert!(setup.known("a.example.com", Some(&old)).await.is_err());
    assert_eq!(setup.known("a.example.com", Some(&next.issue(&["me"]))).await, Ok(true));
}

#[tokio::test]
async fn bad_settings_change_nothing() {
    let setup = setup();
    setup.store.set_client_auth(vec![setup.ask("a.example.com", true)]).unwrap();
    let ca_file = setup.dir.join("missing.pem");
    let missing = (HostPattern::parse("b.example.com").unwrap(), Some(ClientAuth { ca_file, required: true }));
    let error = setup.store.set_client_auth(vec![missing]).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    let error = setup.store.set_client_auth(vec![setup.ask("*", true), setup.ask("*", false)]).unwrap_err();
    assert!(matches!(error, CertsError::ClientAuthConflict(HostPattern::Any)), "{error}");
    assert!(setup.known("a.example.com", None).await.is_err());
    assert_eq!(setup.known("b.example.com", None).await, Ok(false));
}

#[test]
fn a_connection_serves_only_hosts_that_ask_for_the_same() {
    let setup = setup();
    let hosts = [("a.example.com", true), ("b.example.com", true), ("c.example.com", false), ("192.0.2.2", true)];
    setup.store.set_client_auth(hosts.map(|(host, required)| setup.ask(host, required)).into()).unwrap();
    for (opened_for, host, shares) in [
        (Some("a.example.com"), "a.example.com", true),
        (Some("a.example.com"), "b.example.com", true),
        (Some("a.example.com"), "c.example.com", false),
        (Some("example.com"), "a.example.com", false),
        (Some("example.com"), "d.example.com", true),
        (None, "a.example.com", false),
        (None, "192.0.2.1", true),
        (None, "[::1]", true),
        (None, "192.0.2.2", false),
        (Some("a.example.com"), "192.0.2.1", false),
    ] {
        assert_eq!(setup.store.shares_client_auth(opened_for, &name(host)), shares, "{opened_for:?} {host}");
    }
}
