//! OpenSSH's server as a container would have it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use crate::ssh::upstream::fingerprint;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Ends when it is dropped.
pub struct Sshd {
    child: Child,
    pub address: SocketAddr,
    pub host_key_fingerprint: String,
}

impl Sshd {
    /// Lets certificates of `authority` (a public key's line) in that name `principal`, and the key `plain`.
    pub fn start(dir: &Path, authority: &str, principal: &str, plain: &str) -> Self {
        // Where it separates privileges; packages make it at boot.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let host_key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let path = |name: &str| dir.join(name);
        host_key.write_openssh_file(path("host_key"), LineEnding::LF).unwrap();
        for (name, text) in [("user_ca.pub", authority), ("principals", principal), ("authorized_keys", plain)] {
            std::fs::write(path(name), format!("{text}\n")).unwrap();
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = |name: &str| path(name).display().to_string();
        let config = [
            format!("ListenAddress {free}"),
            format!("HostKey {}", at("host_key")),
            format!("TrustedUserCAKeys {}", at("user_ca.pub")),
            format!("AuthorizedPrincipalsFile {}", at("principals")),
            format!("AuthorizedKeysFile {}", at("authorized_keys")),
            "PidFile none".to_owned(),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PermitRootLogin prohibit-password".to_owned(),
            "PasswordAuthentication no".to_owned(),
            "MaxSessions 200".to_owned(),
            "AcceptEnv LANG LC_*".to_owned(),
            "Subsystem sftp internal-sftp".to_owned(),
        ];
        std::fs::write(path("sshd_config"), config.join("\n") + "\n").unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .expect("openssh-server is installed");
        let sshd = Self { child, address: free, host_key_fingerprint: fingerprint(host_key.public_key()) };
        let begun = Instant::now();
        while std::net::TcpStream::connect(free).is_err() {
            assert!(begun.elapsed() < START_TIMEOUT, "sshd does not listen");
            std::thread::yield_now();
        }
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
