//! The SSH server in a container: whom it lets in, and by which key it is known.
//!
//! A gateway logs in with a certificate that its user CA signed for one container and some minutes, whatever user it is
//! for. So a container's server knows the CA's public key and its own id, and shows a host key that nothing else has,
//! whose fingerprint the gateway was told beforehand. The keys of the container's owner are not among its files: they
//! could not be taken back from one that sleeps. Who goes through the gateway as a mere jump host needs their key in
//! `~/.ssh/authorized_keys`, and puts it there like on any other machine.

mod authorities;
mod host_keys;

use std::collections::BTreeMap;
use std::fmt;

use edd_proto::ContainerId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::authorities::{AuthoritiesError, UserAuthorities};
pub use self::host_keys::HostKeys;

/// Made where it is missing: sshd's unprivileged half is locked into it.
pub(super) const EMPTY_DIR: &str = "/run/sshd";
/// The whole configuration, for an image that leaves its server to us.
pub(super) const CONFIG: &str = "/etc/ssh/edd/sshd_config";
/// The same for an image with a configuration of its own, which includes this before anything else, as Debian's does.
const DROP_IN: &str = "/etc/ssh/sshd_config.d/00-edd.conf";
const USER_CA: &str = "/etc/ssh/edd/user_ca.pub";
const PRINCIPALS: &str = "/etc/ssh/edd/principals";
const HOST_KEY: &str = "/etc/ssh/edd/host_key";

/// What holds in every container. A client opens many sessions on one connection, and all clients come from one address.
const RULES: &str = "\
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxAuthTries 20
MaxSessions 100
MaxStartups 100:30:200
LoginGraceTime 30
ClientAliveInterval 30
AllowAgentForwarding yes
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
StreamLocalBindUnlink yes
GatewayPorts clientspecified
X11Forwarding yes
PermitUserEnvironment no
AcceptEnv LANG LC_*
PrintMotd no
UseDNS no
";
/// What an image's own configuration says already, and may say but once.
const OWN_RULES: &str = "\
UsePAM no
PrintLastLog no
PidFile none
Subsystem sftp internal-sftp
";
/// Variables that are the user's who logs in, or the client's.
const NOT_SET: [&str; 7] = ["HOME", "LANG", "LOGNAME", "SHELL", "TERM", "USER", "MAIL"];

/// What the SSH servers of all containers are set up with.
#[derive(Clone, Debug)]
pub struct Sshd {
    authorities: UserAuthorities,
    host_keys: HostKeys,
}

/// A file in a container, as its server finds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConfigFile {
    /// Absolute.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: String,
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One of them is a private key.
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sshd {
    /// Servers that let in whom `authorities` vouch for.
    pub fn new(authorities: UserAuthorities, host_keys: HostKeys) -> Self {
        Self { authorities, host_keys }
    }

    /// `SHA256:…` of the host key of `id`.
    pub(super) fn fingerprint(&self, id: ContainerId) -> String {
        self.host_keys.of(id).fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    /// Changes when containers that were set up before are to be set up anew.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(self.authorities.to_string());
        digest.update(self.host_keys.digest());
        format!("{:x}", digest.finalize())
    }

    /// The files of a server on `port` whose sessions have this environment.
    pub(super) fn files(&self, id: ContainerId, port: u16, environment: &BTreeMap<String, String>) -> Vec<ConfigFile> {
        let common = format!(
            "Port {port}\nHostKey {HOST_KEY}\nTrustedUserCAKeys {USER_CA}\nAuthorizedPrincipalsFile {PRINCIPALS}\n\
             {RULES}{}",
            set_env(environment)
        );
        let file = |path: &str, mode, content| ConfigFile { path: path.to_owned(), mode, content };
        vec![
            file(USER_CA, 0o644, self.authorities.to_string()),
            file(PRINCIPALS, 0o644, format!("{id}\n")),
            file(HOST_KEY, 0o600, self.host_keys.to_openssh(id)),
            file(CONFIG, 0o644, format!("{common}{OWN_RULES}")),
            file(DROP_IN, 0o644, common),
        ]
    }
}

/// The directive that gives sessions what else runs in the container has in its environment.
fn set_env(environment: &BTreeMap<String, String>) -> String {
    // A directive is a line.
    let fits = |name: &str, value: &str| !NOT_SET.contains(&name) && !format!("{name}{value}").contains(['\n', '\r']);
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let words: String = environment
        .iter()
        .filter(|(name, value)| fits(name, value))
        .map(|(name, value)| format!(" \"{}={}\"", quoted(name), quoted(value)))
        .collect();
    if words.is_empty() { words } else { format!("SetEnv{words}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sshd() -> Sshd {
        let authorities = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ ca";
        Sshd::new(authorities.parse().expect("an authority"), HostKeys::from_secret([7; 32]))
    }

    #[test]
    fn a_container_is_given_its_own_and_no_secret_in_the_open() {
        let id: ContainerId = "abcdefgh12".parse().expect("an id");
        let environment = [("GREETING", r#"a "b" \ c"#), ("HOME", "/root"), ("LINES", "a\nb")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let files = sshd().files(id, 2200, &environment);
        let of = |path: &str| files.iter().find(|file| file.path == path).expect(path);
        assert_eq!(of(PRINCIPALS).content, "abcdefgh12\n");
        assert!(of(HOST_KEY).mode == 0o600 && of(HOST_KEY).content.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        let config = &of(CONFIG).content;
        assert!(config.contains("Port 2200\n") && config.contains(r#"SetEnv "GREETING=a \"b\" \\ c""#), "{config}");
        assert!(!config.contains("HOME=") && !config.contains("LINES="), "{config}");
        let secret = of(HOST_KEY).content.lines().nth(1).expect("a key");
        assert!(!format!("{files:?}").contains(secret));
    }

    #[test]
    fn another_authority_or_secret_is_another_set_up() {
        let other = Sshd::new(sshd().authorities, HostKeys::from_secret([8; 32]));
        assert_eq!(sshd().digest(), sshd().digest());
        assert_ne!(sshd().digest(), other.digest());
    }
}
