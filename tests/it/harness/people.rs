//! People who come to the gateway to register, and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::edd::ask;
use super::record::Record;

/// The auth service's own host.
pub const AUTH_HOST: &str = "auth.cloud.localhost";
const PASSWORD: &str = "tr0ub4dor&3";
/// How many register at once during a rush.
const RUSH_PEOPLE: usize = 2;

/// Somebody who was told that they are a user now.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub name: String,
    pub token: String,
}

/// Clones share what they were told.
#[derive(Clone)]
pub struct People {
    pub gateway: SocketAddr,
    pub registered: Record<User>,
}

impl People {
    /// Somebody registers, from an address of their own: the status of the answer, or 0 if no whole one came.
    pub async fn register(&self) -> u16 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, high, middle, low] = number.to_be_bytes();
        let (name, address) = (format!("user-{number}"), format!("10.{high}.{middle}.{low}"));
        let account = json!({"username": name, "password": PASSWORD});
        let from = [("x-forwarded-for", address.as_str())];
        let Ok(answer) = ask(self.gateway, "POST /api/register", AUTH_HOST, &from, &account).await else { return 0 };
        if answer.status == 200 {
            let text = |field: &str| match &answer.json()[field] {
                Value::String(text) => text.clone(),
                other => panic!("`{field}` is {other}"),
            };
            self.registered.push(User { id: text("user_id"), name, token: text("token") });
        }
        answer.status
    }

    /// They come one after the other, until it ends.
    pub fn rush(&self) -> Rush {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for _ in 0..RUSH_PEOPLE {
            let (people, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                let mut statuses = Vec::new();
                while !stop.is_cancelled() {
                    statuses.push(people.register().await);
                }
                statuses
            });
        }
        Rush { stop, tasks }
    }
}

/// Registrations that go on.
pub struct Rush {
    stop: CancellationToken,
    tasks: JoinSet<Vec<u16>>,
}

impl Rush {
    /// Lets those who have begun finish: how many were answered with each status.
    pub async fn end(mut self) -> BTreeMap<u16, usize> {
        self.stop.cancel();
        let mut answers = BTreeMap::new();
        while let Some(statuses) = self.tasks.join_next().await {
            for status in statuses.expect("nobody panics while they register") {
                *answers.entry(status).or_default() += 1;
            }
        }
        answers
    }
}
