//! Somebody with containers.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Value, json};

use super::edd::Edd;
use super::people::User;
use super::response::Response;

/// The compute service's own host.
const COMPUTE_HOST: &str = "compute.cloud.localhost";
/// Longest wait for a container: it is made from what the machine has, which takes its time on a busy one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Tenant<'d> {
    pub gateway: &'d Edd,
    pub user: User,
}

/// A container as its owner was told of it.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub host: String,
}

impl Tenant<'_> {
    /// What compute answers, by the gateway.
    pub async fn ask(&self, request: &str, body: &Value) -> Response {
        let bearer = format!("Bearer {}", self.user.token);
        self.gateway.ask(request, COMPUTE_HOST, &[("authorization", &bearer)], body).await
    }

    /// What is answered to a request that must be granted.
    pub async fn done(&self, request: &str, body: Value) -> Value {
        let answer = self.ask(request, &body).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        answer.json()
    }

    /// Waits until compute knows who calls: services that have just started ask one another for keys first.
    pub async fn until_known(&self) {
        until("compute to know callers", async || match self.ask("GET /compute/images", &Value::Null).await {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text().to_owned()),
        })
        .await;
    }

    /// A container more, accepted and not there yet.
    pub async fn create(&self, wanted: Value) -> Made {
        let made = self.done("POST /compute/containers", wanted).await;
        let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("no {field} in {made}")).to_owned();
        Made { id: text("id"), host: text("hostname") }
    }

    /// A container more, which answers already.
    pub async fn run(&self, name: &str) -> Made {
        let made = self.create(json!({"name": name, "ssh_enabled": false})).await;
        self.until_status(&made.id, "running").await;
        self.until_web(&made.host, 200).await;
        made
    }

    pub async fn container(&self, id: &str) -> Value {
        self.done(&format!("GET /compute/containers/{id}"), Value::Null).await
    }

    pub async fn until_status(&self, id: &str, status: &str) -> Value {
        let last = RefCell::new(Value::Null);
        until(&format!("{id} to be {status}"), async || {
            let container = self.container(id).await;
            let found = if container["status"] == status { Ok(()) } else { Err(container.to_string()) };
            last.replace(container);
            found
        })
        .await;
        last.into_inner()
    }

    /// Waits until there is no such container.
    pub async fn until_gone(&self, id: &str) {
        until(&format!("{id} to be gone"), async || {
            let answer = self.ask(&format!("GET /compute/containers/{id}"), &Value::Null).await;
            if answer.status == 404 { Ok(()) } else { Err(answer.text().to_owned()) }
        })
        .await;
    }

    /// What the web has to say under a host name, by plain HTTP.
    pub async fn web(&self, host: &str) -> Response {
        self.gateway.get(host, "/").await
    }

    pub async fn until_web(&self, host: &str, status: u16) -> Response {
        self.until_page(host, status, "").await
    }

    /// Waits until the host answers with the status and with a page that says `word`: one status may have more than
    /// one reason, and the gateway hears of a new one a moment after compute's API tells it.
    pub async fn until_page(&self, host: &str, status: u16, word: &str) -> Response {
        let last = RefCell::new(None);
        until(&format!("{host} to answer with {status} {word}"), async || {
            let answer = self.web(host).await;
            let is_it = answer.status == status && answer.text().contains(word);
            let found = if is_it { Ok(()) } else { Err(answer.text().to_owned()) };
            last.replace(Some(answer));
            found
        })
        .await;
        last.into_inner().expect("an answer")
    }
}

/// Looks again and again, but not for ever.
#[track_caller]
pub fn until(what: &str, look: impl AsyncFn() -> Result<(), String>) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let mut last = String::new();
        let looks = async {
            while let Err(difference) = look().await {
                last = difference;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looks).await.is_err() {
            panic!("{at}: waited {PATIENCE:?} for {what}: {last}");
        }
    }
}
