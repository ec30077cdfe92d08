//! What all peers of a run share: a temporary folder with the certificate, the files to serve, and a port of its own for
//! every listener.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, run};
use crate::machine;

pub const SMALL_BYTES: usize = 1024;
pub const LARGE_BYTES: u64 = 100 << 20;

pub struct Site {
    folder: PathBuf,
    /// Where the upstream listens on loopback.
    pub upstream: u16,
}

impl Site {
    /// `folder` exists and is removed by whoever made it.
    pub fn new(folder: &Path) -> Result<Self, Failure> {
        let site = Self { folder: folder.to_owned(), upstream: free_port()? };
        let write = |name: &str, content: &[u8]| {
            let file = folder.join(name);
            let parent = file.parent().unwrap_or(folder);
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&file, content))
                .map_err(|error| cannot_write(&file, &error))
        };
        write("files/1k", &[b'x'; SMALL_BYTES])?;
        write("files/100m", &b"0123456789abcdef".repeat(LARGE_BYTES as usize / 16))?;
        write("certs/request.cnf", CERTIFICATE_REQUEST.as_bytes())?;
        certificate(&folder.join("certs"))?;
        let read = |name: &str| fs::read(folder.join("certs").join(name)).map_err(|error| cannot_write(folder, &error));
        write("bench.pem", &[read("bench.crt")?, read("bench.key")?].concat())?;
        Ok(site)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn authority(&self) -> PathBuf {
        self.path("certs/bench.crt")
    }

    /// Fills `template` in and writes it as `name`.
    pub fn configuration(&self, name: &str, template: &str, http: u16, https: u16) -> Result<PathBuf, Failure> {
        let user = if machine::is_root() { "user root;" } else { "" };
        let values = [
            ("@DIR@", self.folder.display().to_string()),
            ("@HTTP@", http.to_string()),
            ("@HTTPS@", https.to_string()),
            ("@UPSTREAM@", self.upstream.to_string()),
            ("@NGINX_USER@", user.to_owned()),
        ];
        let file = self.path(name);
        fs::write(&file, fill(template, &values)).map_err(|error| cannot_write(&file, &error))?;
        Ok(file)
    }
}

fn fill(template: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// A port that was free a moment ago; no server of ours can bind port 0 and tell.
pub fn free_port() -> Result<u16, Failure> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|error| Failure::step(format!("no free port on 127.0.0.1: {error}")))
}

const CERTIFICATE_REQUEST: &str = "\
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// A self-signed ECDSA P-256 certificate, which is what an ACME client asks for by default.
fn certificate(folder: &Path) -> Result<(), Failure> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-config", "request.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-noenc", "-days", "30", "-keyout", "bench.key", "-out", "bench.crt"]);
    run(openssl.current_dir(folder).stdin(Stdio::null()).stderr(Stdio::null()))
}

fn cannot_write(file: &Path, error: &std::io::Error) -> Failure {
    Failure::step(format!("cannot prepare {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::peer::TEMPLATES;

    #[test]
    fn templates_use_only_names_that_are_filled_in() {
        let values = ["@DIR@", "@HTTP@", "@HTTPS@", "@UPSTREAM@", "@NGINX_USER@"].map(|name| (name, "7".to_owned()));
        for template in TEMPLATES {
            assert!(template.contains("@UPSTREAM@"));
            let filled = fill(template, &values);
            // envoy's `"@type"` is the one @ that stays.
            assert!(!filled.replace("\"@type\"", "").contains('@'), "{filled}");
        }
    }
}
