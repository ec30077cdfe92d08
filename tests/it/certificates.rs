//! Which certificate a client gets, and when: files and their replacement, the local authority, versions of TLS.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{AlertDescription, Error, ProtocolVersion};

use crate::harness::tls::{Agreed, Authority, Client, Identity};
use crate::harness::{Cases, Edd, Program, Upstream, within};

/// Puts a file in place as a renewal does: whole, by a rename.
fn replace(path: &Path, text: &str) {
    let new = path.with_file_name(".new");
    std::fs::write(&new, text).expect("a directory that takes files");
    std::fs::rename(&new, path).expect("a directory that takes files");
}

/// Puts both files of a certificate in place.
fn renew(edd: &Edd, stem: &str, identity: &Identity) {
    replace(&edd.path(&format!("certs/{stem}.crt")), &identity.certificate);
    replace(&edd.path(&format!("certs/{stem}.key")), &identity.key);
}

/// What a handshake for `name` comes to, or the alert that refuses it.
async fn handshake(edd: &Edd, client: &Client, name: &str) -> Result<Agreed, AlertDescription> {
    match client.connect(edd.https, name).await {
        Ok((_, agreed)) => Ok(agreed),
        Err(error) => match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => Err(*alert),
            _ => panic!("no alert for {name}: {error:?}"),
        },
    }
}

/// Shakes hands until `name` is served with this certificate.
async fn until_served(edd: &Edd, client: &Client, name: &str, identity: &Identity) {
    let shown =
        async { while handshake(edd, client, name).await.expect("a certificate").certificate != identity.der() {} };
    within(&format!("the new certificate of {name}"), shown).await;
}

/// Asks over TLS once, which also takes in the tickets that follow a handshake of TLS 1.3.
async fn ask(edd: &Edd, client: &Client, name: &str) -> (Agreed, String) {
    let (mut connection, agreed) = client.connect(edd.https, name).await.expect("a handshake");
    connection.send(format!("GET /x HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
    let answer = connection.response().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (agreed, answer.json()["headers"]["x-request-id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn the_most_exact_file_is_served() {
    let authority = Authority::new("files");
    let [apex, wild, exact, folder] =
        [&["a.test", "www.b.test"][..], &["*.a.test"], &["x.a.test"], &["c.test"]].map(|names| authority.sign(names));
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .file("certs/apex.crt", &apex.certificate)
        .file("certs/apex.key", &apex.key)
        .file("certs/wild.pem", &wild.certificate)
        .file("certs/wild.key", &wild.key)
        .file("certs/x.a.test.crt", &exact.certificate)
        .file("certs/x.a.test.key", &exact.key)
        .file("certs/folder/tls.crt", &folder.certificate)
        .file("certs/folder/tls.key", &folder.key)
        .start()
        .await;
    let client = Client::trusting(&authority.pem());
    let mut cases = Cases::default();
    for (name, want) in [
        ("a.test", Some(&apex)),
        ("www.b.test", Some(&apex)),
        ("y.a.test", Some(&wild)),
        ("x.a.test", Some(&exact)),
        ("c.test", Some(&folder)),
        // A wildcard stands for one label, and a name for itself alone.
        ("z.x.a.test", None),
        ("b.test", None),
        ("xa.test", None),
        ("a.test.evil.test", None),
    ] {
        let case = async {
            let got = handshake(&edd, &client, name).await.map(|agreed| agreed.certificate);
            assert_eq!(got, want.map(Identity::der).ok_or(AlertDescription::UnrecognisedName));
        };
        cases.case(name, case).await;
    }
    cases.finish();
    assert_eq!(ask(&edd, &client, "x.a.test").await.0.certificate, exact.der());
}

/// Neither the name of a stranger nor no name at all gets somebody else's certificate.
#[tokio::test]
async fn clients_for_nobody_are_refused_with_an_alert() {
    let authority = Authority::new("files");
    let (named, address) = (authority.sign(&["a.test"]), authority.sign(&["127.0.0.1"]));
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .env("EDD_LOCAL_CA", "false")
        .file("certs/a.crt", &named.certificate)
        .file("certs/a.key", &named.key)
        .start()
        .await;
    let client = Client::trusting(&authority.pem());
    // Clients send no name when they go to an address.
    for name in ["b.test", "cloud.localhost", "localhost", "127.0.0.1"] {
        for client in [&client, &Client::trusting(&authority.pem()).version(&TLS12)] {
            assert_eq!(handshake(&edd, client, name).await, Err(AlertDescription::UnrecognisedName), "{name}");
        }
    }
    let refused = [("result", "unknown_name")];
    edd.wait_metrics("8 refusals", |metrics| metrics.value("edd_tls_handshakes_total", &refused) == Some(8.0)).await;
    let url = format!("https://b.test:{}/", edd.https.port());
    let output = edd.curl(&["--insecure", &url]).run().await;
    assert_eq!(output.code, Some(35), "{output:?}");
    assert!(output.stderr.contains("unrecognized name"), "{output:?}");
    assert!(!edd.path("data/ca").exists(), "an authority that nobody asked for");
    // A certificate for the address is for those who name none.
    renew(&edd, "address", &address);
    let shown = async { while handshake(&edd, &client, "127.0.0.1").await.is_err() {} };
    within("the certificate of the address", shown).await;
    assert_eq!(handshake(&edd, &client, "127.0.0.1").await.expect("a certificate").certificate, address.der());
    assert_eq!(handshake(&edd, &client, "b.test").await, Err(AlertDescription::UnrecognisedName));
}

#[tokio::test]
async fn a_renewed_file_is_served_at_once_and_no_connection_ends_for_it() {
    let authority = Authority::new("files");
    let [old, new, other] = [["a.test"], ["a.test"], ["b.test"]].map(|names| authority.sign(&names));
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .file("certs/a.crt", &old.certificate)
        .file("certs/a.key", &old.key)
        .start()
        .await;
    let client = Client::trusting(&authority.pem());
    let (mut before, agreed) = client.connect(edd.https, "a.test").await.expect("a handshake");
    assert_eq!(agreed.certificate, old.der());
    renew(&edd, "a", &new);
    // A session that is resumed shows the certificate that it began with.
    until_served(&edd, &Client::trusting(&authority.pem()), "a.test", &new).await;
    before.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(before.response().await.status, 200);
    // A file that was not there before, and one that is there no longer.
    renew(&edd, "b", &other);
    let appeared = async { while handshake(&edd, &client, "b.test").await.is_err() {} };
    within("the certificate of b.test", appeared).await;
    let series = [("name", "b.test")];
    assert!(edd.metrics().await.value("edd_tls_certificate_not_after_seconds", &series).is_some());
    for ending in ["crt", "key"] {
        std::fs::remove_file(edd.path(&format!("certs/b.{ending}"))).expect("a file to remove");
    }
    let gone = async { while handshake(&edd, &client, "b.test").await.is_ok() {} };
    within("the certificate of b.test to be gone", gone).await;
    assert_eq!(edd.metrics().await.value("edd_tls_certificate_not_after_seconds", &series), None);
    edd.wait_log("the removal", |line| line.text.contains("b.crt") && line.text.contains("out of service")).await;
}

/// Writes one version of a Secret as the kubelet does, and swaps `..data` to it.
fn mount(volume: &Path, version: &str, identity: &Identity) {
    let dir = volume.join(version);
    std::fs::create_dir_all(&dir).expect("a directory to write to");
    std::fs::write(dir.join("tls.crt"), &identity.certificate).expect("a directory to write to");
    std::fs::write(dir.join("tls.key"), &identity.key).expect("a directory to write to");
    symlink(version, volume.join("..data_tmp")).expect("a directory to write to");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a link to replace");
}

#[tokio::test]
async fn a_mounted_secret_is_swapped_whole() {
    let authority = Authority::new("files");
    let upstream = Upstream::start().await;
    // As a volume of its own, and as one of several.
    for volume in ["certs", "certs/site"] {
        let [first, second, third] = [(); 3].map(|()| authority.sign(&["a.test"]));
        let builder = Edd::gateway(upstream.routes());
        let dir = builder.path(volume);
        mount(&dir, "..2026_01", &first);
        for file in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{file}"), dir.join(file)).expect("a directory to write to");
        }
        let edd = builder.start().await;
        until_served(&edd, &Client::trusting(&authority.pem()), "a.test", &first).await;
        for (version, identity) in [("..2026_02", &second), ("..2026_03", &third)] {
            mount(&dir, version, identity);
            until_served(&edd, &Client::trusting(&authority.pem()), "a.test", identity).await;
        }
        assert!(edd.log().iter().all(|line| line.field("level") != "ERROR"), "{:#?}", edd.log());
    }
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told_everywhere() {
    let authority = Authority::new("files");
    let (good, renewed) = (authority.sign(&["a.test"]), authority.sign(&["a.test"]));
    let half = &renewed.certificate[..renewed.certificate.len() / 2];
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .file("certs/a.crt", &good.certificate)
        .file("certs/a.key", &good.key)
        .start()
        .await;
    let client = Client::trusting(&authority.pem());
    let failures = |metrics: &crate::harness::Metrics| {
        metrics.value("edd_tls_certificate_reloads_total", &[("result", "failure")]).expect("a series from the start")
    };
    assert_eq!(failures(&edd.metrics().await), 0.0);
    let mut cases = Cases::default();
    for (number, (file, text, told)) in (1..).zip([
        ("a.crt", "nonsense", "it holds no certificate"),
        ("a.crt", half, "not well-formed PEM"),
        ("a.crt", &renewed.certificate, "not the key of the first certificate"),
        ("a.key", "", "it holds no private key"),
    ]) {
        let case = async {
            replace(&edd.path(&format!("certs/{file}")), text);
            edd.wait_log(format!("{told:?} in the log"), |line| {
                line.field("level") == "ERROR" && line.text.contains(told) && line.text.contains("last good version")
            })
            .await;
            // The file that is at fault is named, and so is the way out.
            let shown = edd.admin("/certs").await.json()["certificates"][0].clone();
            let message = shown["message"].as_str().expect("a message");
            assert!(message.contains(&format!("certs/{file}`")) && message.contains("; "), "{message}");
            assert_eq!((&shown["state"], &shown["in_service"]), (&"error".into(), &true.into()));
            let ready = edd.admin("/readyz?verbose").await;
            assert_eq!(ready.status, 200, "serving on is no outage");
            assert!(ready.text().contains("[!] certificates: a.test: ") && ready.text().contains(told));
            assert_eq!(handshake(&edd, &client, "a.test").await.expect("a certificate").certificate, good.der());
            assert!(failures(&edd.metrics().await) >= f64::from(number));
            replace(&edd.path("certs/a.crt"), &good.certificate);
            replace(&edd.path("certs/a.key"), &good.key);
            let whole = async { while !edd.admin("/readyz?verbose").await.text().contains("[+] certificates") {} };
            within("all to be well again", whole).await;
        };
        cases.case(told, case).await;
    }
    cases.finish();
    renew(&edd, "a", &renewed);
    until_served(&edd, &Client::trusting(&authority.pem()), "a.test", &renewed).await;
}

#[tokio::test]
async fn the_local_authority_signs_for_its_own_names_on_demand() {
    let authority = Authority::new("files");
    let file = authority.sign(&["own.cloud.test"]);
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes())
        .env("EDD_BASE_DOMAIN", "cloud.test")
        .file("certs/own.crt", &file.certificate)
        .file("certs/own.key", &file.key)
        .start()
        .await;
    let client = Client::trusting(&edd.local_authority());
    let mut cases = Cases::default();
    for (name, signed) in [
        ("localhost", true),
        ("a.localhost", true),
        ("b.a.localhost", true),
        ("cloud.test", true),
        ("c1.cloud.test", true),
        ("x.c1.cloud.test", true),
        // Without a name: the certificate for this machine's own address.
        ("127.0.0.1", true),
        ("test", false),
        ("xcloud.test", false),
        ("cloud.test.evil.test", false),
        ("localhost.test", false),
    ] {
        let case = async {
            let got = handshake(&edd, &client, name).await.map(drop);
            assert_eq!(got, if signed { Ok(()) } else { Err(AlertDescription::UnrecognisedName) });
        };
        cases.case(name, case).await;
    }
    cases.finish();
    // What the operator has put there comes first.
    let client = Client::trusting(&authority.pem());
    assert_eq!(handshake(&edd, &client, "own.cloud.test").await.expect("a certificate").certificate, file.der());
    // Names that clients choose are no labels.
    let names = edd.metrics().await;
    assert!(!names.label_values("name").iter().any(|name| name.contains("c1")), "{:?}", names.label_values("name"));
    let key = std::fs::metadata(edd.path("data/ca/root.key")).expect("the authority's key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

/// Whoever has come to trust the authority trusts it after a restart.
#[tokio::test]
async fn the_local_authority_is_made_once() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::up(upstream.routes()).start().await;
    let client = Client::trusting(&edd.local_authority());
    ask(&edd, &client, "any.cloud.localhost").await;
    let again = edd.again();
    edd.signal(rustix::process::Signal::TERM);
    edd.wait_exit().await;
    let edd = again.start().await;
    ask(&edd, &client, "any.cloud.localhost").await;
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_sessions_resumed() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    for (version, number, protocol) in
        [(&TLS12, "1.2", ProtocolVersion::TLSv1_2), (&TLS13, "1.3", ProtocolVersion::TLSv1_3)]
    {
        let client = Client::trusting(&edd.local_authority()).version(version);
        for resumed in [false, true, true] {
            let (agreed, id) = ask(&edd, &client, "cloud.localhost").await;
            assert_eq!((agreed.version, agreed.resumed), (Some(protocol), resumed));
            assert_eq!(edd.access_line(&id).await.field("tls_version"), number);
        }
        let metrics = edd.metrics().await;
        let count = |result| metrics.value("edd_tls_handshakes_total", &[("version", number), ("result", result)]);
        assert_eq!((count("full"), count("resumed")), (Some(1.0), Some(2.0)));
    }
    // Older ones are not spoken, whatever a client is ready to bear.
    let root = edd.local_authority_file();
    let root = root.to_str().expect("a plain path");
    let url = format!("https://cloud.localhost:{}/x", edd.https.port());
    let old = ["--cacert", root, "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", &url];
    let output = edd.curl(&old).run().await;
    assert_eq!(output.code, Some(35), "{output:?}");
    assert!(output.stderr.contains(" alert "), "{output:?}");
}

#[tokio::test]
async fn alpn_chooses_what_both_sides_speak() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let client = |offered: &[&str]| Client::trusting(&edd.local_authority()).alpn(offered);
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Ok("h2")),
        (&["http/1.1", "h2"], Ok("h2")),
        (&["http/1.1"], Ok("http/1.1")),
        (&["spdy/3", "http/1.1"], Ok("http/1.1")),
        (&[], Ok("")),
        (&["spdy/3"], Err(AlertDescription::NoApplicationProtocol)),
    ] {
        for version in [&TLS12, &TLS13] {
            let agreed = handshake(&edd, &client(offered).version(version), "cloud.localhost").await;
            assert_eq!(agreed.map(|agreed| agreed.alpn), chosen.map(str::to_owned), "{offered:?}");
        }
    }
    // No protocol named is HTTP/1.1.
    ask(&edd, &client(&[]), "cloud.localhost").await;
}

/// Other libraries than rustls get along with it too; OpenSSL sends a name as it is written.
#[tokio::test]
async fn names_are_taken_in_any_case() {
    let upstream = Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let root = edd.local_authority_file();
    let root = root.to_str().expect("a plain path");
    let address = edd.https.to_string();
    let client = ["s_client", "-connect", &address, "-CAfile", root, "-verify_return_error", "-brief"];
    let output = Program::new("openssl").args(&client).args(&["-servername", "Cloud.LOCALHOST"]).run().await;
    assert!(output.ok().is_empty() && output.stderr.contains("Verification: OK"), "{output:?}");
}
