use rustls::CipherSuite;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};

use super::authority::Authority;
use super::client::Client;
use super::scratch::Scratch;

#[tokio::test]
async fn the_cheapest_cipher_of_those_that_suit_the_client_is_used() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("site", &ca.issue(&["example.com"]));
    let store = dir.store();
    let [aes_128, aes_256, chacha] =
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    for (ciphers, want) in [
        (&[aes_256, chacha, aes_128][..], CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&[aes_256], CipherSuite::TLS13_AES_256_GCM_SHA384),
        // It has no hardware for AES.
        (&[chacha, aes_128, aes_256], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ] {
        let client = Client::with_ciphers(ca.roots(), ciphers);
        for resumed in [false, true] {
            let seen = client.connect(&store, "example.com").await.unwrap();
            assert_eq!((seen.cipher, seen.resumed), (want, resumed));
        }
    }
}
