//! The ways that files take, and who is on them.

use std::net::SocketAddr;

use edd_servers::nats::Nats;
use edd_servers::port;
use edd_servers::postgres::Postgres;
use serde_json::{Value, json};

use crate::harness::{Deployment, Role, ask, until};
use crate::load::Server;
use crate::nginx::Nginx;

const HOST: &str = "cloud.localhost";
const NGINX_HOST: &str = "nginx.test";
const NAMESPACE: &str = "bench";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Nginx,
    Share,
    /// Through edd's gateway.
    NginxBehind,
    ShareBehind,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Share, Self::NginxBehind, Self::ShareBehind];

    pub fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Share => "the share",
            Self::NginxBehind => "nginx, through edd's gateway",
            Self::ShareBehind => "the share, through edd's gateway",
        }
    }

    /// What it is held against.
    pub fn peer(self) -> Self {
        match self {
            Self::Nginx | Self::Share => Self::Nginx,
            Self::NginxBehind | Self::ShareBehind => Self::NginxBehind,
        }
    }
}

/// The share in a process of its own on SQLite, the gateway in another, and nginx.
pub struct Stage {
    deployment: Deployment,
    nginx: Nginx,
    share: SocketAddr,
    token: String,
    // Later than all that use it.
    _nats: Nats,
}

impl Stage {
    pub async fn build() -> Self {
        let nats = Nats::start();
        let share: SocketAddr = ([127, 0, 0, 1], port::free()).into();
        let mut deployment = Deployment::separate(&nats, Postgres::shared());
        let database = deployment.builder(Role::Sfs).path("data/sfs.db");
        let database = format!("sqlite://{}?mode=rwc", database.display());
        for (name, value) in [
            ("EDD_API_LISTEN", share.to_string()),
            ("SFS_DATABASE_URL", database),
            ("EDD_SFS_USER_QUOTA_BYTES", (1_u64 << 50).to_string()),
            ("EDD_SFS_USER_MAX_FILES", 100_000_000.to_string()),
        ] {
            deployment.set(Role::Sfs, name, &value);
        }
        deployment.set(Role::Gateway, "SFS_SERVICE_URL", &format!("http://{share}"));
        deployment.start().await;
        let nginx = Nginx::start();
        deployment
            .gateway()
            .write_routes(&format!("routes: [{{host: {NGINX_HOST}, target: '127.0.0.1:{}'}}]", nginx.port));
        let token = deployment.register().await.token;
        let stage = Self { deployment, nginx, share, token, _nats: nats };
        stage.until_ready().await;
        stage
    }

    async fn until_ready(&self) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str())];
        until("the share to know callers", async || {
            let wanted = json!({"name": NAMESPACE, "visibility": "private"});
            match ask(self.share, "POST /storage/namespaces", HOST, &headers, &wanted).await {
                Ok(answer) if matches!(answer.status, 200 | 201 | 409) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        until("the gateway to know nginx", async || {
            match ask(self.deployment.gateway().http, "GET /none", NGINX_HOST, &[], &Value::Null).await {
                Ok(answer) if answer.text().contains("nginx") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub fn server(&self, way: Way) -> Server {
        let gateway = self.deployment.gateway().http;
        let nginx =
            |address| Server { address, host: NGINX_HOST.to_owned(), prefix: String::new(), token: String::new() };
        let share = |address| Server {
            address,
            host: HOST.to_owned(),
            prefix: format!("/storage/{NAMESPACE}"),
            token: self.token.clone(),
        };
        match way {
            Way::Nginx => nginx(([127, 0, 0, 1], self.nginx.port).into()),
            Way::NginxBehind => nginx(gateway),
            Way::Share => share(self.share),
            Way::ShareBehind => share(gateway),
        }
    }

    /// The share's process and the gateway's.
    pub fn processes(&mut self) -> [u32; 2] {
        [Role::Sfs, Role::Gateway].map(|role| self.deployment.process(role).pid())
    }

    pub async fn end(mut self) {
        drop(self.nginx);
        self.deployment.stop().await;
    }
}
