use std::fs;

use super::scratch::Scratch;
use crate::certs::trust::{SystemOutcome, SystemStore, install, remove};
use crate::certs::{CertStore, CertsConfig, CertsError, LocalCaConfig};

/// A directory with an authority in `ca`, and an empty system store in `anchors` whose program is `update`.
fn setup(update: &[&str]) -> (Scratch, SystemStore) {
    let dir = Scratch::new();
    let local_ca = Some(LocalCaConfig { dir: dir.join("ca"), names: Vec::new() });
    CertStore::open(CertsConfig { certs_dir: None, local_ca }).unwrap();
    fs::create_dir(dir.join("anchors")).unwrap();
    let store = SystemStore { dir: dir.join("anchors"), update: update.iter().map(Into::into).collect() };
    (dir, store)
}

#[test]
fn the_root_goes_in_and_out_of_the_system_store() {
    let (dir, mut store) = setup(&[]);
    // The program leaves a line each time it runs.
    let script = format!("echo ran >> {}", dir.join("log").display());
    store.update = ["sh", "-c", &script].map(Into::into).into();
    let anchor = dir.join("anchors/edd-local-ca.crt");
    let report = install(&dir.join("ca"), Some(&store)).unwrap();
    assert_eq!(report.system, SystemOutcome::Installed(anchor.clone()));
    assert_eq!(fs::read(&anchor).unwrap(), fs::read(dir.join("ca/root.pem")).unwrap());
    assert_eq!(fs::read_dir(dir.join("anchors")).unwrap().count(), 1, "no draft is left");
    install(&dir.join("ca"), Some(&store)).unwrap();
    let report = remove(&dir.join("ca"), Some(&store)).unwrap();
    assert_eq!(report.system, SystemOutcome::Removed(anchor.clone()));
    assert!(!anchor.exists());
    assert_eq!(remove(&dir.join("ca"), Some(&store)).unwrap().system, SystemOutcome::NotInstalled);
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), "ran\nran\nran\n");
}

#[test]
fn a_failing_program_is_an_error_with_its_words() {
    let (dir, store) = setup(&["sh", "-c", "echo no space >&2; exit 3"]);
    let error = install(&dir.join("ca"), Some(&store)).unwrap_err();
    assert!(matches!(&error, CertsError::Command { output, .. } if output.contains("no space")), "{error}");
    let (dir, store) = setup(&["edd-no-such-program"]);
    let error = install(&dir.join("ca"), Some(&store)).unwrap_err();
    assert!(error.to_string().contains("`edd-no-such-program` failed"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn without_rights_the_commands_are_told() {
    let (dir, mut store) = setup(&["true"]);
    // Where not even the superuser may create a file.
    store.dir = "/sys".into();
    let SystemOutcome::NeedsRights { commands } = install(&dir.join("ca"), Some(&store)).unwrap().system else {
        panic!("it was installed");
    };
    let copy = format!("sudo install -m 0644 {} /sys/edd-local-ca.crt", dir.join("ca/root.pem").display());
    assert_eq!(commands, [copy, "sudo true".to_owned()]);
}

#[test]
fn other_systems_are_told_what_to_do() {
    let (dir, _) = setup(&[]);
    let (added, removed) = (install(&dir.join("ca"), None).unwrap(), remove(&dir.join("ca"), None).unwrap());
    assert_eq!(added.system, SystemOutcome::Unknown);
    let root = dir.join("ca/root.pem").display().to_string();
    for (added, removed) in added.manual.iter().zip(&removed.manual) {
        assert_eq!(added.target, removed.target);
        assert!(added.commands.iter().all(|command| command.contains(&root)), "{added:?}");
        assert_ne!(added.commands, removed.commands);
    }
}

#[test]
fn without_an_authority_there_is_a_hint() {
    let message = install(&Scratch::new().join("ca"), None).unwrap_err().to_string();
    assert!(message.contains("there is no local authority yet") && message.contains("edd up"), "{message}");
}
