//! An installation with somebody who has a namespace, at a name that every client resolves.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Deployment, Program, Role, Workdir, ask, until};

/// The dashboard's host, under which the share is. The clients' resolvers know no other name of this machine.
pub const HOST: &str = "localhost";
pub const NAMESPACE: &str = "docs";
pub const USER: &str = "ann";
const PASSWORD: &str = "correct horse battery";

pub struct Site {
    pub deployment: Deployment,
    /// Where clients have their files, and remember what they did.
    pub home: Workdir,
    pub token: String,
}

impl Site {
    /// `edd up`, at a port that it keeps.
    pub async fn start() -> Self {
        let mut deployment = Deployment::single();
        let port = edd_servers::port::free();
        deployment.set_all("EDD_BASE_DOMAIN", HOST);
        deployment.set_all("EDD_HTTP_LISTEN", &format!("127.0.0.1:{port}"));
        deployment.start().await;
        let mut site = Self { deployment, home: Workdir::new(), token: String::new() };
        let account = json!({"username": USER, "password": PASSWORD});
        let answer = site.ask("POST /api/register", &account).await;
        site.token = answer["token"].as_str().unwrap_or_else(|| panic!("a token in {answer}")).to_owned();
        site.until_known().await;
        site.ask("POST /storage/namespaces", &json!({"name": NAMESPACE, "visibility": "private"})).await;
        site
    }

    /// Waits until the share knows who calls: it follows the auth service.
    pub async fn until_known(&self) {
        until("the share to know callers", async || {
            let bearer = format!("Bearer {}", self.token);
            let http = self.deployment.gateway().http;
            match ask(http, "GET /storage/status", HOST, &[("authorization", &bearer)], &Value::Null).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub async fn ask(&self, request: &str, body: &Value) -> Value {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        let headers = &headers[..usize::from(!self.token.is_empty())];
        let answer = self.deployment.gateway().ask(request, HOST, headers, body).await;
        assert!((200..300).contains(&answer.status), "{request}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}", self.deployment.gateway().http.port())
    }

    pub fn file_url(&self, path: &str) -> String {
        format!("{}/storage/{NAMESPACE}/{path}", self.url())
    }

    /// Where the share keeps its bytes.
    pub fn blobs(&mut self) -> PathBuf {
        self.deployment.process(Role::Up).path("data/blobs")
    }

    pub fn here(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A file of `length` bytes that has no two places alike.
    pub fn make(&self, name: &str, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        StdRng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
        let file = self.here(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(&file, &bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        bytes
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let file = self.here(name);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// A client in our folder, which is also its home.
    pub fn program(&self, name: &str) -> Program {
        let home = self.home.path().to_str().expect("a plain path");
        Program::new(name).dir(self.home.path()).env("HOME", home)
    }

    /// `edd files`, as the namespace's owner.
    pub fn files(&self, arguments: &[&str]) -> Program {
        let home = self.home.path().to_str().expect("a plain path");
        let program = Program::edd(&["files"]).args(arguments).dir(self.home.path()).env("HOME", home);
        program.env("EDD_URL", &self.url()).env("EDD_TOKEN", &self.token)
    }

    /// `curl`, as the namespace's owner.
    pub fn curl(&self, arguments: &[&str]) -> Program {
        let authorization = format!("Authorization: Bearer {}", self.token);
        let program = self.program("curl").args(&["--silent", "--show-error", "--max-time", "60"]);
        program.args(&["--header", &authorization]).args(arguments)
    }
}

/// Every file below `folder`, by its path from there.
pub fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(folder, "", &mut found);
    found.sort_unstable();
    found
}

fn walk(folder: &Path, above: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let path = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { walk(&entry.path(), &format!("{path}/"), found) } else { found.push(path) }
    }
}
