//! A server that talks TLS, with a certificate of an authority that no machine knows.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("a file");
        path
    };
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &ours).expect("a certificate");
    let (certificate, key) = (file("server.pem", certificate.pem()), file("server.key", key.serialize_pem()));
    let tls = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", certificate, key);
    let nats = Nats::with_config(&tls);

    let tls_ca_file = Some(file("ours.pem", ours.pem()));
    let bus = JetStreamBus::connect(&JetStreamConfig { tls_ca_file, ..config(&nats) }).await.expect("settings");
    bus.ensure(&[USERS], &[]).await.expect("streams");

    let tls_ca_file = Some(file("theirs.pem", theirs.pem()));
    for config in [JetStreamConfig { tls_ca_file, ..config(&nats) }, config(&nats)] {
        let bus = JetStreamBus::connect(&config).await.expect("settings");
        let error = bus.stream("USERS").await.expect_err("no trust");
        assert!(matches!(&error, BusError::Unavailable(reason) if reason.contains("certificate")), "{error}");
    }
}
