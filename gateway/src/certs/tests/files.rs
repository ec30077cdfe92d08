use std::fs;
use std::os::unix::fs::symlink;

use super::authority::Authority;
use super::scratch::Scratch;
use crate::certs::{CertState, CertStore, CertsConfig, CertsError};

/// The only problem of a store over `dir`, which must serve `good.example.com` in spite of it.
fn problem(dir: &Scratch, ca: &Authority) -> String {
    dir.put_pair("good", &ca.issue(&["good.example.com"]));
    let store = dir.store();
    assert!(store.covers("good.example.com") && !store.covers("bad.example.com"));
    let report = store.reports().borrow().clone();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(!report.problems[0].in_service);
    let bad: Vec<_> = store.list().into_iter().filter(|info| info.state == CertState::Error).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].message.as_ref(), Some(&report.problems[0].message));
    report.problems[0].message.clone()
}

/// Names and contents.
type Files<'a> = &'a [(&'a str, &'a str)];

#[test]
fn each_problem_names_the_file_and_what_to_do() {
    let ca = Authority::new("test");
    let (pem, other) = (ca.issue(&["bad.example.com"]), ca.issue(&["bad.example.com"]));
    let encrypted = pem.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let huge = pem.cert.clone() + &"#".repeat(1024 * 1024);
    let cut = &pem.cert[..pem.cert.len() / 2];
    let cases: [(Files, &[&str]); 11] = [
        (&[("bad.crt", &pem.cert)], &["bad.crt`: there is no key beside it", "bad.key`"]),
        (&[("bad.key", &pem.key)], &["bad.key`: there is no certificate beside it", "bad.crt`"]),
        (&[("bad.crt", &pem.cert), ("bad.key", &other.key)], &["bad.key`: it is not the key", "bad.crt`", "replace"]),
        (&[("bad.crt", "hello"), ("bad.key", &pem.key)], &["bad.crt`: it holds no certificate", "PEM"]),
        (&[("bad.crt", cut), ("bad.key", &pem.key)], &["bad.crt`: it is not well-formed PEM", "copy"]),
        (&[("bad.crt", &pem.cert), ("bad.key", "hello")], &["bad.key`: it holds no private key"]),
        (
            &[("bad.crt", &pem.cert), ("bad.key", &encrypted)],
            &["bad.key`: the private key is encrypted", "openssl pkey"],
        ),
        (&[("bad.crt", &huge), ("bad.key", &pem.key)], &["bad.crt`: it is larger than 1048576 bytes"]),
        (
            &[("bad.crt", &pem.cert), ("bad.pem", &pem.cert), ("bad.key", &pem.key)],
            &["bad.crt`", "bad.pem`", "remove one"],
        ),
        (&[("bad/tls.crt", &pem.cert)], &["bad/tls.crt`: there is no key", "bad/tls.key`"]),
        (&[("bad.crt/x", ""), ("bad.key", &pem.key)], &["bad.key`: there is no certificate"]),
    ];
    for (files, expected) in cases {
        let dir = Scratch::new();
        for (name, content) in files {
            dir.put(name, content);
        }
        let message = problem(&dir, &ca);
        for part in expected {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}

#[test]
fn a_common_name_alone_is_no_name() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("bad", &ca.issue(&[]));
    let message = problem(&dir, &ca);
    assert!(message.contains("it names no host") && message.contains("subjectAltName"), "{message}");
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put("bad.key", &ca.issue(&["bad.example.com"]).key);
    symlink("/dev/zero", dir.join("bad.crt")).unwrap();
    assert!(problem(&dir, &ca).contains("bad.crt`: it is not a file"));
}

#[test]
fn dangling_symlinks_are_a_problem_of_their_pair() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put("bad/tls.key", &ca.issue(&["bad.example.com"]).key);
    symlink("gone", dir.join("bad/tls.crt")).unwrap();
    let message = problem(&dir, &ca);
    assert!(message.contains("cannot read") && message.contains("bad/tls.crt"), "{message}");
}

#[test]
fn pairs_are_found_in_every_layout() {
    let (dir, ca) = (Scratch::new(), Authority::new("test"));
    dir.put_pair("flat", &ca.issue(&["flat.example.com"]));
    let pem = ca.issue(&["pem.example.com"]);
    dir.put("with.dots.pem", &pem.cert);
    dir.put("with.dots.key", &pem.key);
    dir.put_pair("folder/tls", &ca.issue(&["folder.example.com"]));
    // A Secret as a volume of its own.
    dir.put_pair("secret/..2026_01/tls", &ca.issue(&["secret.example.com"]));
    symlink("..2026_01", dir.join("secret/..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), dir.join("secret").join(file)).unwrap();
    }
    // A projected volume with a folder for each Secret.
    dir.put_pair("..2026_02/projected/tls", &ca.issue(&["projected.example.com"]));
    symlink("..2026_02", dir.join("..data")).unwrap();
    symlink("..data/projected", dir.join("projected")).unwrap();
    // Not ours.
    dir.put_pair(".hidden", &ca.issue(&["hidden.example.com"]));
    dir.put("README.md", "no certificate");
    let store = dir.store();
    for name in ["flat", "pem", "folder", "secret", "projected"] {
        assert!(store.covers(&format!("{name}.example.com")), "{name}");
    }
    assert_eq!(store.list().len(), 5);
    assert_eq!(store.reports().borrow().problems, []);
}

#[test]
fn a_directory_may_be_absent_but_not_unreadable() {
    let dir = Scratch::new();
    let open = |path| CertStore::open(CertsConfig { certs_dir: Some(path), local_ca: None });
    let store = open(dir.join("absent")).unwrap();
    assert!(store.list().is_empty() && store.reports().borrow().problems.is_empty());
    fs::write(dir.join("file"), "").unwrap();
    assert!(matches!(open(dir.join("file")), Err(CertsError::Io { .. })));
}
