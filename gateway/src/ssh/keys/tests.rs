use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;
use std::sync::OnceLock;

use super::*;

/// A directory that has an RSA key: making one takes a debug build a long time.
fn dir() -> tempfile::TempDir {
    static RSA: OnceLock<Vec<u8>> = OnceLock::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(Purpose::RsaHost.file());
    let rsa = RSA.get_or_init(|| {
        keygen(&["-t", "rsa", "-b", "3072"], &path);
        fs::read(&path).unwrap()
    });
    fs::write(&path, rsa).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    dir
}

/// Lets OpenSSH make a key.
fn keygen(kind: &[&str], path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-f"]).arg(path).args(kind).status().unwrap();
    assert!(made.success());
}

/// What opening `dir` fails with.
fn error(dir: &Path) -> String {
    Keys::open(dir).unwrap_err().to_string()
}

fn shown(keys: &Keys) -> Vec<PublicKey> {
    keys.hosts.iter().chain([&keys.user_ca]).map(|key| key.public_key().clone()).collect()
}

#[test]
fn keys_are_made_once_and_openssh_reads_them() {
    let dir = dir();
    let dir = dir.path().join("");
    let first = Keys::open(&dir).unwrap();
    assert_eq!(shown(&first), shown(&Keys::open(&dir).unwrap()));
    let kinds: Vec<String> = first.hosts.iter().map(|key| key.algorithm().to_string()).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]);
    for (purpose, key) in Purpose::HOSTS.into_iter().chain([Purpose::UserCa]).zip(shown(&first)) {
        let path = dir.join(purpose.file());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = Command::new("ssh-keygen").arg("-yf").arg(&path).output().unwrap();
        assert!(read.status.success(), "{read:?}");
        let read = PublicKey::from_openssh(&String::from_utf8(read.stdout).unwrap()).unwrap();
        assert_eq!(read.key_data(), key.key_data());
    }
    let public = fs::read_to_string(dir.join("user_ca.pub")).unwrap();
    assert_eq!(PublicKey::from_openssh(&public).unwrap(), *first.user_ca.public_key());
    let drafts = fs::read_dir(&dir).unwrap().filter(|it| it.as_ref().unwrap().path().extension().is_some());
    assert_eq!(drafts.count(), 1, "the public key alone has an extension");
}

#[test]
fn two_that_start_at_once_agree() {
    for _ in 0..20 {
        let dir = dir();
        let open = || shown(&Keys::open(dir.path()).unwrap());
        let all = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(all.iter().all(|keys| *keys == all[0]));
    }
}

#[test]
fn a_new_rsa_key_is_large_enough() {
    // Small, because a debug build takes minutes for a large one: only what is said of it is looked at.
    let small = RsaKeypair::random(&mut rand::rng(), 1024).unwrap();
    let small = PrivateKey::new(small.into(), "").unwrap();
    assert_eq!(Purpose::RsaHost.objection(&small).as_deref(), Some("it has 1024 bits"));
    let dir = dir();
    let keys = Keys::open(dir.path()).unwrap();
    assert_eq!(Purpose::RsaHost.objection(&keys.hosts[2]), None);
    assert_eq!(RSA_BITS, 3072);
}

#[test]
fn what_is_no_key_is_named_and_left_alone() {
    let dir = dir();
    let path = dir.path().join("ssh_host_ed25519_key");
    let text = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let said = error(dir.path());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert!(said.starts_with(&format!("{}: ", path.display())), "{said}");
        said
    };
    for garbage in ["", "garbage", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"] {
        assert!(text(garbage).contains("no OpenSSH private key"), "{garbage:?}");
    }
    assert!(text(&"x".repeat(100_000)).contains("larger than 65536 bytes"));
    fs::remove_file(&path).unwrap();
    keygen(&["-t", "ecdsa"], &path);
    assert!(error(dir.path()).contains("of the kind ecdsa-sha2-nistp256, and has to be an Ed25519 key"));
    fs::remove_file(&path).unwrap();
    keygen(&["-t", "ed25519", "-N", "secret"], &path);
    assert!(error(dir.path()).contains("ssh-keygen -p"), "{}", error(dir.path()));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(error(dir.path()).contains("it is not a file"), "{}", error(dir.path()));
}

#[test]
fn a_key_that_others_may_read_or_replace_is_refused() {
    let dir = dir();
    Keys::open(dir.path()).unwrap();
    let path = dir.path().join("user_ca");
    let set_mode = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    for mode in [0o604, 0o620, 0o660, 0o666, 0o644] {
        set_mode(mode);
        let said = error(dir.path());
        assert!(said.contains(&format!("its mode {mode:03o}")) && said.contains("chmod 600"), "{said}");
    }
    for mode in [0o400, 0o440, 0o640] {
        set_mode(mode);
        Keys::open(dir.path()).unwrap();
    }
    if Own::new().unwrap().user == 0 {
        chown(&path, Some(12_345), None).unwrap();
        assert!(error(dir.path()).contains("belongs to the user 12345"), "{}", error(dir.path()));
    }
}

#[test]
fn a_group_may_read_where_root_says_so_or_where_it_is_the_process_own() {
    use Objection::{Mode, Owner};
    let (own, root) = (Own { user: 1000, group: 27 }, Own { user: 0, group: 0 });
    for (mode, owner, group, expected) in [
        (0o600, 1000, 5, None),
        (0o440, 1000, 27, None),
        (0o440, 1000, 5, Some(Mode)),
        (0o440, 0, 2000, None),
        (0o460, 0, 2000, Some(Mode)),
        (0o444, 0, 2000, Some(Mode)),
        (0o600, 1001, 1000, Some(Owner)),
    ] {
        assert_eq!(Access { mode, owner, group }.objection(&own), expected, "{mode:o} {owner}:{group}");
    }
    assert_eq!(Access { mode: 0o440, owner: 0, group: 2000 }.objection(&root), None);
    assert_eq!(Access { mode: 0o440, owner: 1000, group: 0 }.objection(&root), Some(Owner));
}

/// As the kubelet mounts it: files in a folder with a date, reached by two links, which it replaces all at once.
#[test]
fn a_mounted_secret_is_read_and_left_alone() {
    let (made, mounted) = (dir(), tempfile::tempdir().unwrap());
    let keys = shown(&Keys::open(made.path()).unwrap());
    let dated = mounted.path().join("..2026_11_22_03_00_00.123");
    fs::create_dir(&dated).unwrap();
    for file in fs::read_dir(made.path()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), dated.join(file.file_name())).unwrap();
        fs::set_permissions(dated.join(file.file_name()), PermissionsExt::from_mode(0o440)).unwrap();
        symlink(Path::new("..data").join(file.file_name()), mounted.path().join(file.file_name())).unwrap();
    }
    symlink(dated.file_name().unwrap(), mounted.path().join("..data")).unwrap();
    let before = fs::read_dir(&dated).unwrap().count();
    assert_eq!(shown(&Keys::open(mounted.path()).unwrap()), keys);
    assert_eq!((fs::read_dir(&dated).unwrap().count(), before), (5, 5));
}

#[test]
fn the_public_key_that_containers_are_told_fits() {
    let dir = dir();
    let keys = Keys::open(dir.path()).unwrap();
    let path = dir.path().join("user_ca.pub");
    let own = fs::read_to_string(&path).unwrap();
    let other = keys.hosts[0].public_key().to_openssh().unwrap();
    fs::write(&path, format!("{other}\n{own}")).unwrap();
    Keys::open(dir.path()).unwrap();
    fs::write(&path, &other).unwrap();
    assert!(error(dir.path()).contains("lacks the public key of user_ca; write it: ssh-keygen -y"));
}

#[test]
fn a_directory_that_cannot_be_written_says_what_to_do() {
    // Nobody, root neither, writes there.
    let said = error(Path::new("/proc/edd-ssh"));
    assert!(said.contains("create it, or name another with EDD_SSH_KEYS_DIR"), "{said}");
    let said = error(Path::new("/proc/self"));
    let by_hand = "write the missing key: ssh-keygen -q -N '' -t ed25519 -f /proc/self/ssh_host_ed25519_key";
    assert!(said.contains(by_hand), "{said}");
}
