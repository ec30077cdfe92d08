//! Somebody with files.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Broken, Connection, Deployment, Edd, Response, User, until};

/// The share's own host.
const STORAGE_HOST: &str = "storage.cloud.localhost";

#[derive(Clone)]
pub struct Person {
    pub address: SocketAddr,
    host: String,
    pub user: User,
}

impl Person {
    pub fn new(gateway: &Edd, user: User) -> Self {
        Self { address: gateway.http, host: STORAGE_HOST.to_owned(), user }
    }

    /// The first administrator.
    pub async fn admin(deployment: &Deployment) -> Self {
        let account = json!({"username": "admin", "password": "correct horse battery"});
        let told = deployment.ask("POST /api/login", "", &account).await;
        let text = |field: &str| told[field].as_str().expect("text").to_owned();
        let user = User { id: text("user_id"), name: text("username"), token: text("token") };
        Self::new(deployment.gateway(), user)
    }

    /// The same person at another host.
    pub fn at(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// The same person at another process.
    pub fn by(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Whoever has no token.
    pub fn nobody(&self) -> Self {
        let user = User { token: String::new(), ..self.user.clone() };
        Self { user, ..self.clone() }
    }

    /// The head of a request without `Content-Length` and the empty line.
    pub fn head(&self, request: &str, headers: &[(&str, &str)]) -> String {
        let mut text = format!("{request} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        if !self.user.token.is_empty() {
            text += &format!("Authorization: Bearer {}\r\n", self.user.token);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text
    }

    pub async fn try_send(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, Broken> {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head(request, headers), body.len());
        let mut connection = Connection::open(self.address).await;
        connection.try_send([head.as_bytes(), body].concat()).await.map_err(|_| Broken::Closed)?;
        connection.try_response(request.split(' ').next().expect("a method")).await
    }

    pub async fn send(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_send(request, headers, body).await.expect("a whole answer")
    }

    /// What is answered to a request that must be granted; the body is JSON unless it is null.
    pub async fn done(&self, request: &str, body: &Value) -> Value {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("content-type", "application/json")];
        let answer = self.send(request, &headers[..usize::from(!body.is_null())], text.as_bytes()).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        answer.json()
    }

    /// Waits until the share knows who calls: services that have just started ask one another for keys first.
    pub async fn until_known(&self) {
        until("the share to know callers", async || match self.send("GET /storage/status", &[], b"").await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text().to_owned()),
        })
        .await;
    }

    /// All bytes of a file.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        let answer = self.send(&format!("GET /storage/{path}"), &[], b"").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.body
    }

    /// Begins a resumable upload: its path.
    pub async fn create_upload(&self, namespace: &str, path: &str, length: usize) -> String {
        let (length, metadata) = (length.to_string(), metadata(namespace, path));
        let headers = [("tus-resumable", "1.0.0"), ("upload-length", &length), ("upload-metadata", &metadata)];
        let made = self.send("POST /storage/tus", &headers, b"").await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.header("location").to_owned()
    }

    /// Goes on with one.
    pub async fn add(&self, location: &str, offset: usize, bytes: &[u8]) {
        let offset = offset.to_string();
        let answer = self.send(&format!("PATCH {location}"), &part(&offset), bytes).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// How far it is.
    pub async fn offset(&self, location: &str) -> Option<usize> {
        let answer = self.send(&format!("HEAD {location}"), &[("tus-resumable", "1.0.0")], b"").await;
        (answer.status == 200).then(|| answer.header("upload-offset").parse().expect("a number"))
    }
}

/// The headers of a part.
pub fn part(offset: &str) -> [(&str, &str); 3] {
    [("tus-resumable", "1.0.0"), ("upload-offset", offset), ("content-type", "application/offset+octet-stream")]
}

/// Where an upload goes, as tus says it.
pub fn metadata(namespace: &str, path: &str) -> String {
    format!("namespace {},filename {}", STANDARD.encode(namespace), STANDARD.encode(path))
}

/// A form with one file: its content type, and its bytes.
pub fn form(name: &str, media_type: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    let head = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {media_type}\r\n\r\n"
    );
    let body = [head.as_bytes(), bytes, b"\r\n--XX--\r\n"].concat();
    ("multipart/form-data; boundary=XX".to_owned(), body)
}
