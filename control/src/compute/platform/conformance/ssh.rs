//! Logging in where an image has an SSH server: OpenSSH's own client, with certificates that its own tools sign.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output as Done};

use ssh_key::private::Ed25519Keypair;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey};

use super::*;
use crate::compute::platform::SshServer;
use crate::compute::platform::sshd::{HostKeys, Sshd};

/// The authority that the servers of all machines trust.
fn authority() -> PrivateKey {
    Ed25519Keypair::from_seed(&[3; 32]).into()
}

/// What every machine gives its platform.
pub(in crate::compute::platform) fn sshd() -> Sshd {
    let authorities = authority().public_key().to_openssh().expect("a line").parse().expect("an authority");
    Sshd::new(authorities, HostKeys::from_secret([4; 32]))
}

/// A gateway's place in one login.
struct Gateway {
    folder: tempfile::TempDir,
    address: String,
    port: String,
}

impl Gateway {
    /// Has a key of its own, and knows the host key of a container whose fingerprint it was told.
    async fn of(observed: &Observed, ssh: &SshServer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let private = |name: &str, key: &PrivateKey| {
            let path = folder.path().join(name);
            fs::write(&path, key.to_openssh(LineEnding::LF).expect("a key")).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
        };
        private("ca", &authority());
        let key: PrivateKey = Ed25519Keypair::from_seed(&rand::random()).into();
        private("key", &key);
        fs::write(folder.path().join("key.pub"), key.public_key().to_openssh().expect("a line")).expect("written");
        let address = observed.address.expect("an address").to_string();
        let gateway = Self { folder, address, port: ssh.port.to_string() };
        let shown = gateway.run("ssh-keyscan", &["-t", "ed25519", "-p", &gateway.port, &gateway.address]).await;
        let shown = text(shown.stdout);
        let line = shown.lines().find(|line| !line.starts_with('#')).expect("a host key");
        let host_key = PublicKey::from_openssh(line.split_once(' ').expect("host and key").1).expect("a key");
        assert_eq!(host_key.fingerprint(HashAlg::Sha256).to_string(), ssh.host_key, "another server is there");
        fs::write(gateway.folder.path().join("known_hosts"), shown).expect("written");
        gateway
    }

    async fn run(&self, program: &'static str, arguments: &[&str]) -> Done {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("HOME", self.folder.path());
        let done = tokio::task::spawn_blocking(move || command.output());
        within(program, done).await.expect("a task").unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Has `script` run as `user`, with a certificate for `principal`.
    async fn log_in(&self, user: &str, principal: &str, script: &str) -> Done {
        let signed = ["-q", "-s", "ca", "-I", "u1/k1/s1", "-n", principal, "-V", "-1m:+2m", "key.pub"];
        let signed = self.run("ssh-keygen", &signed).await;
        assert!(signed.status.success(), "{}", text(signed.stderr));
        let options = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", "key", "-l", user];
        let host = ["-o", "UserKnownHostsFile=known_hosts", "-p", &self.port, &self.address, script];
        self.run("ssh", &[&options[..], &host].concat()).await
    }

    async fn said(&self, user: &str, principal: &str, script: &str) -> String {
        let done = self.log_in(user, principal, script).await;
        assert!(done.status.success(), "{user}: {script}: {}", text(done.stderr));
        text(done.stdout)
    }
}

pub(in crate::compute::platform) async fn gateways_log_in_by_ssh(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("ssh");
    let observed = started(&platform, &spec).await;
    let Some(ssh) = observed.ssh.clone() else {
        println!("NOT RUN: there is no SSH server in this image, or none can run here");
        return end(machine, platform).await;
    };
    let own = spec.id.as_str();
    let gateway = Gateway::of(&observed, &ssh).await;
    // Whichever way one comes in, it looks the same.
    let script = r#"echo "$USER $HOME $PATH $EDD_CONTAINER_ID $GREETING""#;
    let exec = Exec { user: Some("root".to_owned()), ..shell(script) };
    let (inside, ..) = rest(&mut session(&platform, spec.id, exec).await).await;
    assert!(inside.starts_with("root /root ") && inside.ends_with(&format!(" {own} hello there\n")), "{inside}");
    assert_eq!(gateway.said("root", own, script).await, inside);
    assert_eq!(gateway.said("user", own, "id -un; pwd").await, "user\n/home/user\n");
    // A certificate for another container, and no certificate at all.
    let refused = gateway.log_in("root", "abcdefgh12", "true").await;
    assert!(text(refused.stderr).contains("Permission denied"));
    fs::remove_file(gateway.folder.path().join("key-cert.pub")).expect("there");
    let bare = ["-F", "none", "-o", "BatchMode=yes", "-i", "key", "-o", "UserKnownHostsFile=known_hosts"];
    let bare = gateway.run("ssh", &[&bare[..], &["-p", &gateway.port, "-l", "root", &gateway.address]].concat()).await;
    assert!(text(bare.stderr).contains("Permission denied"));
    // It is known again after a stop.
    platform.stop(spec.id, GRACE).await.expect("stopped");
    assert_eq!(platform.observe(spec.id).await.expect("observed").expect("there").ssh, None);
    let again = started(&platform, &spec).await;
    assert_eq!(again.ssh.as_ref(), Some(&ssh));
    let gateway = Gateway::of(&again, &ssh).await;
    assert_eq!(gateway.said("root", own, "cat /etc/ssh/edd/principals").await, format!("{own}\n"));
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn sessions_run_as_users(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("users");
    started(&platform, &spec).await;
    let as_user = |user: &str, script: &str| Exec { user: Some(user.to_owned()), ..shell(script) };
    assert_eq!(rest(&mut session(&platform, spec.id, as_user("root", "id -u")).await).await.0, "0\n");
    let nobody = platform.exec(spec.id, as_user("nosuchuser", "true")).await.map(drop);
    assert!(matches!(&nobody, Err(PlatformError::Impossible(why)) if why.contains("nosuchuser")), "{nobody:?}");
    if !machine.has_users() {
        let refused = platform.exec(spec.id, as_user("nobody", "true")).await.map(drop);
        assert!(matches!(refused, Err(PlatformError::Impossible(_))), "{refused:?}");
        return end(machine, platform).await;
    }
    let script = "id -un; id -u; echo $HOME $USER; pwd; touch /root/x 2>/dev/null || echo kept out";
    let (said, stderr, exit) = rest(&mut session(&platform, spec.id, as_user("user", script)).await).await;
    let expected = "user\n1000\n/home/user user\n/home/user\nkept out\n";
    assert_eq!((said.as_str(), exit), (expected, Exit::Code(0)), "{stderr}");
    let terminal = Some(Size { columns: 80, rows: 24 });
    let exec = Exec { terminal, ..as_user("user", "test -w $(tty) && echo its own; kill -0 1 || echo no power") };
    let (said, ..) = rest(&mut session(&platform, spec.id, exec).await).await;
    assert!(said.contains("its own") && said.contains("no power"), "{said}");
    let login = Exec { user: Some("user".to_owned()), ..Exec::default() };
    let mut login = session(&platform, spec.id, login).await;
    login.input.send(Input::Bytes("id -un; exit 5\n".into())).await.expect("sent");
    let (said, _, exit) = rest(&mut login).await;
    assert!(said.contains("user") && exit == Exit::Code(5), "{said} {exit:?}");
    end(machine, platform).await;
}
