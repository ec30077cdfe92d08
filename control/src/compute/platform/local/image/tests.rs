use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;

fn images(dir: &Path, tier: Tier) -> Images {
    let program = Program { path: "/bin/true".into(), arguments: vec!["x".to_owned()] };
    let sshd = Some(crate::compute::platform::conformance::sshd());
    let config = Config { max_image_bytes: 1 << 20, sshd, ..Config::new(dir, program) };
    Images::new(dir.to_owned(), tier, &config)
}

fn entry(kind: EntryType, path: &str, mode: u32, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    // Written as it is: the builder would refuse what we must refuse ourselves.
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, content).expect("an entry");
    let mut bytes = builder.into_inner().expect("a tarball");
    // Without the two blocks that end it.
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn tarball(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

#[test]
fn a_tarball_is_unpacked_once_with_its_modes() {
    let folder = tempfile::tempdir().expect("a folder");
    let content = tarball(&[
        entry(EntryType::Directory, "./closed/", 0o555, "", b""),
        entry(EntryType::Regular, "./closed/tool", 0o4755, "", b"#!/bin/sh\n"),
        entry(EntryType::Symlink, "bin", 0o777, "/usr/bin", b""),
        entry(EntryType::Char, "dev-null", 0o666, "", b""),
    ]);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&content).expect("packed");
    fs::write(folder.path().join("small.tar.gz"), packed.finish().expect("packed")).expect("written");
    let images = images(folder.path(), Tier::Root);
    let prepared = images.prepare("small").expect("an image");
    let root = prepared.rootfs.expect("files");
    let mode = |path: &str| fs::metadata(root.join(path)).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode("closed"), mode("closed/tool")), (0o555, 0o4755));
    assert_eq!(fs::read_link(root.join("bin")).expect("a link"), Path::new("/usr/bin"));
    assert!(!root.join("dev-null").exists(), "a device was made");
    assert_eq!((prepared.http_port, prepared.must_answer, prepared.ssh_port), (80, false, None));
    assert_eq!(prepared.entry, IDLE);

    fs::write(root.join("mark"), "").expect("written");
    images.prepare("small").expect("again");
    assert!(root.join("mark").exists(), "unpacked twice");
    images.prune(&BTreeSet::from([root.clone()])).expect("pruned");
    assert!(root.exists(), "in use");
    images.prune(&BTreeSet::new()).expect("pruned");
    assert!(!root.exists());
}

#[test]
fn nothing_lands_outside() {
    let folder = tempfile::tempdir().expect("a folder");
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).expect("closed");
    let to_outside = outside.to_str().expect("text").to_owned();
    let link = || entry(EntryType::Symlink, "a", 0o777, &to_outside, b"");
    for (index, entries) in [
        vec![entry(EntryType::Regular, "../x", 0o644, "", b"x")],
        vec![entry(EntryType::Regular, "a/../../x", 0o644, "", b"x")],
        vec![link(), entry(EntryType::Regular, "a/x", 0o644, "", b"x")],
        vec![link(), entry(EntryType::Directory, "a/x/", 0o755, "", b"")],
        vec![entry(EntryType::Link, "x", 0o644, "../../../outside", b"")],
        vec![entry(EntryType::Directory, "a/", 0o755, "", b""), link()],
        // Absolute names are names below the root.
        vec![entry(EntryType::Regular, &format!("{to_outside}/x"), 0o644, "", b"x")],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("evil{index}");
        fs::write(folder.path().join(format!("{name}.tar")), tarball(&entries)).expect("written");
        let _refused_or_inside = images(folder.path(), Tier::Root).prepare(&name);
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "case {index} wrote outside");
        let mode = fs::metadata(&outside).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "case {index} changed what is outside");
        assert!(!folder.path().join(UNPACKED).join("x").exists() && !folder.path().join("x").exists(), "case {index}");
    }
}

#[test]
fn an_image_that_is_too_large_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&tarball(&[entry(EntryType::Regular, "x", 0o644, "", &vec![0; 2 << 20])])).expect("packed");
    fs::write(folder.path().join("bomb.tgz"), packed.finish().expect("packed")).expect("written");
    let images = images(folder.path(), Tier::Root);
    let error = images.prepare("bomb").expect_err("too large").to_string();
    assert!(error.contains("\"bomb\"") && error.contains("more than 1048576 bytes"), "{error}");
    fs::write(folder.path().join("cut.tar"), [b'x'; 700]).expect("written");
    assert!(images.prepare("cut").expect_err("no tarball").to_string().contains("cannot be unpacked"));
    images.prune(&BTreeSet::new()).expect("pruned");
    assert_eq!(fs::read_dir(folder.path().join(UNPACKED)).expect("a folder").count(), 0);
}

#[test]
fn a_manifest_says_what_a_tarball_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("web.tar"), tarball(&[])).expect("written");
    let manifest = r#"{"description": "A site", "entry": ["/srv/run", "-v"], "environment": {"A": "b"},
                       "working_dir": "/srv", "http_port": 3000, "ssh_port": 22}"#;
    fs::write(folder.path().join("web.json"), manifest).expect("written");
    let own = images(folder.path(), Tier::Root);
    let prepared = own.prepare("web").expect("an image");
    assert_eq!(prepared.entry, ["/srv/run", "-v"]);
    assert_eq!((prepared.http_port, prepared.must_answer, prepared.ssh_port), (3000, true, Some(22)));
    assert_eq!((prepared.working_dir.as_str(), prepared.environment["A"].as_str()), ("/srv", "b"));
    let names: Vec<_> = own.list().expect("images").into_iter().map(|image| (image.name, image.is_default)).collect();
    assert_eq!(names, [("default".to_owned(), true), ("web".to_owned(), false)]);

    fs::write(folder.path().join("web.json"), r#"{"entyr": []}"#).expect("written");
    let error = own.prepare("web").expect_err("a wrong manifest").to_string();
    assert!(error.contains("web.json is not understood") && error.contains("entyr"), "{error}");

    let shared = images(folder.path(), Tier::User);
    fs::remove_file(folder.path().join("web.json")).expect("removed");
    let prepared = shared.prepare("web").expect("an image");
    assert!(prepared.http_port >= 80 && prepared.ssh_port.is_none());
    let plain = images(folder.path(), Tier::Plain);
    assert_eq!(plain.list().expect("images").len(), 1);
    assert!(plain.prepare("web").expect_err("no files of its own").to_string().contains("only image"));
}

#[test]
fn names_of_images_are_no_paths() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("secret.tar"), tarball(&[])).expect("written");
    let below = folder.path().join("images");
    fs::create_dir(&below).expect("made");
    for name in ["../secret", "/etc/passwd", "", ".unpacked", "a\0b", "A", "secret", &"x".repeat(64)] {
        let error = images(&below, Tier::Root).prepare(name).expect_err(name);
        assert!(matches!(&error, PlatformError::Impossible(text) if text.contains("there is no image")), "{error}");
    }
}

#[test]
fn the_default_image_is_made_of_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let prepared = images(folder.path(), Tier::Root).prepare(DEFAULT).expect("an image");
    let root = prepared.rootfs.expect("files");
    for path in ["etc/passwd", "proc", "tmp", "opt/edd", "root", "bin"] {
        assert!(fs::symlink_metadata(root.join(path)).is_ok(), "{path} is missing");
    }
    assert!(!root.join("etc/shadow").exists(), "the machine's secrets are in it");
    assert!(prepared.binds.iter().any(|(source, place)| source == Path::new("/usr") && place == "/usr"));
    assert!(prepared.binds.iter().any(|(source, place)| source == Path::new("/bin/true") && place == PROGRAM));
    assert_eq!(prepared.entry.last().map(String::as_str), Some("x"));
}
