//! OpenSSH's server, as Debian brings it.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::port;
use crate::program;
use crate::supervisor::Supervisor;

/// Another process may take the port between the choice and the start.
const TRIES: u32 = 5;
/// Where root's server wants an empty folder.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// Its host keys.
const KINDS: [&str; 2] = ["ed25519", "rsa"];
/// Plenty of everything, so that no case fails for a limit of this server.
const CONFIG: &str = "
PidFile none
AuthorizedKeysFile %FOLDER%/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxAuthTries 20
MaxSessions 1000
MaxStartups 1000
AllowStreamLocalForwarding yes
X11Forwarding yes
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
UseDNS no
";

/// A server of one's own, that lets one user in: whoever runs this process.
#[derive(Debug)]
pub struct Sshd {
    supervisor: Supervisor,
    port: u16,
}

impl Sshd {
    /// Starts one on a free port of the loopback interface. `authorized` are the public keys that log in, one a line.
    pub fn start(authorized: &str) -> Self {
        let supervisor = Supervisor::new("sshd", "TERM", "");
        let run = |words: &[&str]| supervisor.run(words).unwrap_or_else(|failure| panic!("{failure}"));
        for kind in KINDS {
            run(&["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", &format!("host_{kind}")]);
        }
        if !Path::new(PRIVILEGE_SEPARATION).exists() {
            // Who is not root needs none, and cannot make it.
            let _ = fs::create_dir(PRIVILEGE_SEPARATION);
        }
        let mut sshd = Self { supervisor, port: port::free() };
        sshd.write("authorized_keys", authorized);
        for _ in 1..TRIES {
            if sshd.try_start().is_ok() {
                return sshd;
            }
            sshd.port = port::free();
        }
        sshd.try_start().unwrap_or_else(|failure| panic!("{failure}"));
        sshd
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its main process, which starts others for each connection.
    pub fn pid(&self) -> u32 {
        self.supervisor.pid().expect("it was started")
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.supervisor.folder()
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.folder().join(name);
        fs::write(&file, text).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }

    fn try_start(&self) -> Result<(), String> {
        let folder = self.folder().display().to_string();
        let mut config = format!("ListenAddress 127.0.0.1:{}\n", self.port);
        KINDS.iter().for_each(|kind| config += &format!("HostKey {folder}/host_{kind}\n"));
        self.write("sshd_config", &(config + &CONFIG.replace("%FOLDER%", &folder)));
        let programs = program::candidates("sshd", ["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let program = programs.first().ok_or("no sshd: run `cargo xtask setup`")?.display().to_string();
        let words = [program.as_str(), "-D", "-e", "-f", "sshd_config"];
        // It insists on its own full path, and takes that of the file from where it is started.
        self.supervisor.start(&words, || TcpStream::connect(("127.0.0.1", self.port)).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn whoever_has_the_key_is_let_in() {
        let keys = Supervisor::new("keys", "TERM", "");
        keys.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"]).expect("a key");
        let key = keys.folder().join("key");
        let sshd = Sshd::start(&fs::read_to_string(key.with_extension("pub")).expect("a public key"));
        let log_in = |option: &str| {
            let mut ssh = Command::new("ssh");
            ssh.args(["-F", "/dev/null", "-i"]).arg(&key).args(["-p", &sshd.port().to_string(), "-o", option]);
            ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
            ssh.args(["127.0.0.1", "echo in"]).output().expect("ssh runs")
        };
        let output = log_in("IdentitiesOnly=yes");
        assert_eq!(output.stdout, b"in\n", "{output:?}");
        assert_eq!(log_in("PubkeyAuthentication=no").status.code(), Some(255));
    }
}
