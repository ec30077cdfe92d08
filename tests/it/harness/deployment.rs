//! All of edd that has to do with users: in one process on SQLite, or a process for each service, on PostgreSQL and
//! NATS. A test of it ends with [`Deployment::converged`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use edd_events::database::Database;
use edd_events::dead_letter;
use edd_events::event_log::{self, Filter, Status};
use edd_events::projection::{DigestBuilder, Entry, Table};
use edd_events::{outbox, user_cache};
use edd_servers::nats::Nats;
use edd_servers::port;
use edd_servers::postgres::Postgres;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::edd::{Builder, Edd};
use super::people::{AUTH_HOST, People, User};
use super::record::Record;

/// Longest wait for all copies to be complete. Pauses after failures are up to five seconds, and there may be several
/// in a row, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the databases.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Rows that are read in one go.
const PAGE_ROWS: u32 = 500;
/// More than any test makes.
const MAX_EVENTS: usize = 100_000;

const ROUTES: &str = "routes: [{host: moved.test, redirect: {to: 'http://elsewhere.test'}}]";
const SERVICE_KEY: &str = "a key that services share";
const ADMIN_PASSWORD: &str = "correct horse battery";

/// Whether there is time for what only waits.
pub fn is_full_run() -> bool {
    std::env::var_os("EDD_TEST_FULL").is_some()
}

/// Who keeps a copy of the users, and by which consumer.
const COPIES: [(&str, &str); 3] =
    [("sfs", "sfs-service"), ("compute", "compute-service"), ("gateway", "gateway-service")];

/// One of its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// All in one.
    Up,
    Auth,
    Sfs,
    Compute,
    Gateway,
}

pub struct Deployment {
    builders: BTreeMap<Role, Builder>,
    running: BTreeMap<Role, Edd>,
    /// URLs, by service.
    databases: BTreeMap<&'static str, String>,
    registered: Record<User>,
}

impl Deployment {
    /// `edd up`: one process, SQLite, and a bus of its own. Not started yet.
    pub fn single() -> Self {
        let builder = settle(Edd::up(ROUTES));
        let data = builder.path("data");
        Self::single_with(builder, &data)
    }

    /// The same, with all that it keeps in `data`.
    pub fn single_in(data: &Path) -> Self {
        let builder = settle(Edd::up(ROUTES)).env("EDD_DATA_DIR", data.to_str().expect("a plain name"));
        Self::single_with(builder, data)
    }

    fn single_with(builder: Builder, data: &Path) -> Self {
        let url = |service| format!("sqlite://{}?mode=rw", data.join(format!("{service}.db")).display());
        let databases = ["auth", "sfs", "compute", "gateway"].map(|service| (service, url(service)));
        Self {
            databases: BTreeMap::from(databases),
            builders: BTreeMap::from([(Role::Up, builder)]),
            running: BTreeMap::new(),
            registered: Record::default(),
        }
    }

    /// A process for each service, on `nats`, with databases of `postgres`. None of them is started yet.
    pub fn separate(nats: &Nats, postgres: &Postgres) -> Self {
        Self::on(nats, [postgres; 4])
    }

    /// The same, with auth's database and those of the others in clusters of their own.
    pub fn on(nats: &Nats, [auth, sfs, compute, gateway]: [&Postgres; 4]) -> Self {
        let [api, compute_api, sfs_api] = [(); 3].map(|()| format!("127.0.0.1:{}", port::free()));
        let clusters = [("auth", auth), ("sfs", sfs), ("compute", compute), ("gateway", gateway)];
        let databases = BTreeMap::from(clusters.map(|(service, cluster)| (service, cluster.database())));
        let builder = |builder: Builder, service| {
            let builder = settle(builder).env("NATS_URL", &nats.url()).env("DATABASE_URL", &databases[service]);
            builder.env("AUTH_SERVICE_URL", &format!("http://{api}"))
        };
        let builders = BTreeMap::from([
            // The same port after a restart: the others know it by that.
            (Role::Auth, builder(Edd::control("auth"), "auth").env("EDD_API_LISTEN", &api)),
            (Role::Sfs, builder(Edd::control("sfs"), "sfs").env("EDD_API_LISTEN", &sfs_api)),
            (Role::Compute, builder(Edd::control("compute"), "compute").env("EDD_API_LISTEN", &compute_api)),
            (
                Role::Gateway,
                builder(Edd::gateway(ROUTES), "gateway")
                    .env("COMPUTE_SERVICE_URL", &format!("http://{compute_api}"))
                    .env("SFS_SERVICE_URL", &format!("http://{sfs_api}")),
            ),
        ]);
        Self { builders, running: BTreeMap::new(), databases, registered: Record::default() }
    }

    /// Sets a variable of all its processes, from when they are started.
    pub fn set_all(&mut self, name: &str, value: &str) {
        let builders = std::mem::take(&mut self.builders).into_iter();
        self.builders = builders.map(|(role, builder)| (role, builder.env(name, value))).collect();
        if let Some(service) = name.strip_suffix("_DATABASE_URL") {
            let known = self.databases.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(service));
            known.unwrap_or_else(|| panic!("no service is called {service}")).1.replace_range(.., value);
        }
    }

    /// Asks all its processes to end, and waits for that.
    pub async fn stop(&mut self) {
        for role in self.running.keys().copied().collect::<Vec<_>>() {
            self.end(role, rustix::process::Signal::TERM).await;
        }
    }

    /// The URL of a service's database.
    pub fn database(&self, service: &str) -> &str {
        &self.databases[service]
    }

    /// Gives one of them another setting, from its next start on.
    pub fn set(&mut self, role: Role, name: &str, value: &str) {
        let builder = self.builder(role).env(name, value);
        self.builders.insert(role, builder);
    }

    /// Starts every process that does not run, all at once.
    pub async fn start(&mut self) {
        let absent = self.builders.iter().filter(|(role, _)| !self.running.contains_key(role));
        let started = absent.map(async |(role, builder)| (*role, builder.clone().start().await));
        let started = join_all(started).await;
        self.running.extend(started);
    }

    pub async fn start_one(&mut self, role: Role) {
        let edd = self.builder(role).start().await;
        self.running.insert(role, edd);
    }

    /// How to start one of them; what starts by it is not known here until it is given to [`Deployment::run`].
    pub fn builder(&self, role: Role) -> Builder {
        self.builders[&role].clone()
    }

    pub fn run(&mut self, role: Role, edd: Edd) {
        self.running.insert(role, edd);
    }

    pub fn is_running(&self, role: Role) -> bool {
        self.running.contains_key(&role)
    }

    /// One of them has ended.
    pub fn forget(&mut self, role: Role) {
        self.running.remove(&role);
    }

    pub fn process(&mut self, role: Role) -> &mut Edd {
        self.running.get_mut(&role).unwrap_or_else(|| panic!("{role:?} does not run"))
    }

    /// Ends a process, and waits for that.
    pub async fn end(&mut self, role: Role, signal: rustix::process::Signal) {
        let mut edd = self.running.remove(&role).unwrap_or_else(|| panic!("{role:?} does not run"));
        edd.signal(signal);
        edd.wait_exit().await;
    }

    /// Where requests go.
    pub fn gateway(&self) -> &Edd {
        let edd = self.running.get(&Role::Up).or_else(|| self.running.get(&Role::Gateway));
        edd.expect("the gateway runs")
    }

    pub fn people(&self) -> People {
        People { gateway: self.gateway().http, registered: self.registered.clone() }
    }

    /// A user more.
    pub async fn register(&self) -> User {
        let people = self.people();
        assert_eq!(people.register().await, 200);
        people.registered.all().pop().expect("the one who has just registered")
    }

    /// What a user, or with no token nobody, is answered.
    pub async fn ask(&self, request: &str, token: &str, body: &Value) -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let answer = self.gateway().ask(request, AUTH_HOST, &headers[..usize::from(!token.is_empty())], body).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        answer.json()
    }

    /// The first administrator deletes a user.
    pub async fn delete(&self, id: &str) {
        let admin = json!({"username": "admin", "password": ADMIN_PASSWORD});
        let session = self.ask("POST /api/login", "", &admin).await;
        let token = session["token"].as_str().expect("a token");
        self.ask(&format!("DELETE /admin/users?id={id}"), token, &Value::Null).await;
        let left = self.registered.take().into_iter().filter(|user| user.id != id);
        left.for_each(|user| self.registered.push(user));
    }

    /// The users as the database of `service` has them.
    ///
    /// # Errors
    /// It cannot be read now.
    pub async fn copy(&self, service: &str) -> Result<Vec<Entry>, String> {
        let database = self.attach(service).await?;
        let copy = all_rows(&database).await.map_err(|error| format!("{service}: {error}"));
        database.close().await;
        copy
    }

    async fn attach(&self, service: &str) -> Result<Database, String> {
        Database::attach(&self.databases[service]).await.map_err(|error| format!("{service}: {error}"))
    }

    /// Waits until the copy of `service` is as `wanted`.
    #[track_caller]
    pub fn wait_copy(&self, service: &str, what: &str, wanted: impl Fn(&[Entry]) -> bool) -> impl Future<Output = ()> {
        self.wait(what.to_owned(), async move || {
            let copy = self.copy(service).await?;
            if wanted(&copy) { Ok(()) } else { Err(format!("{service} has {copy:?}")) }
        })
    }

    /// How many events wait in the outbox of auth.
    pub async fn outbox(&self) -> u64 {
        let database = self.attach("auth").await.expect("auth's database");
        let (waiting, _) = outbox::backlog(&database).await.expect("a count");
        database.close().await;
        waiting.unsigned_abs()
    }

    /// How many events auth has told of.
    pub async fn events(&self) -> u64 {
        let database = self.attach("auth").await.expect("auth's database");
        let told = told(&database).await.expect("events that the bus has");
        database.close().await;
        told.len() as u64
    }

    /// The convergence check: whoever was told that they are a user is one, the users' owner and every copy have the same
    /// digest, and every event has had its effect in every service, once.
    #[track_caller]
    pub fn converged(&self) -> impl Future<Output = ()> {
        self.wait("all copies to be complete".to_owned(), async || self.compare().await)
    }

    #[track_caller]
    fn wait(&self, what: String, look: impl AsyncFn() -> Result<(), String>) -> impl Future<Output = ()> {
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

    async fn compare(&self) -> Result<(), String> {
        let owner = self.digest().await?;
        let auth = self.attach("auth").await?;
        let told = told(&auth).await;
        auth.close().await;
        let told = told?;
        for (service, consumer) in COPIES {
            let database = self.attach(service).await?;
            let compared = self.compare_copy(&database, consumer, &owner, &told).await;
            database.close().await;
            compared.map_err(|difference| format!("{service}: {difference}"))?;
        }
        Ok(())
    }

    /// What the owner says of all users.
    async fn digest(&self) -> Result<String, String> {
        let key = [("x-service-key", SERVICE_KEY)];
        let answer = self.gateway().ask("GET /api/users/digest", AUTH_HOST, &key, &Value::Null).await;
        if answer.status != 200 {
            return Err(format!("no digest: {} {}", answer.status, answer.text()));
        }
        answer.json()["digest"].as_str().map(str::to_owned).ok_or_else(|| format!("no digest: {}", answer.text()))
    }

    async fn compare_copy(
        &self,
        database: &Database,
        consumer: &str,
        owner: &str,
        told: &BTreeSet<String>,
    ) -> Result<(), String> {
        let away = |error: sqlx::Error| error.to_string();
        let rows = all_rows(database).await.map_err(away)?;
        let live: BTreeSet<&str> = rows.iter().filter(|row| !row.deleted).map(|row| row.key.as_str()).collect();
        let registered = self.registered.all();
        if let Some(lost) = registered.iter().find(|user| !live.contains(user.id.as_str())) {
            return Err(format!("{lost:?} is missing among {} rows", rows.len()));
        }
        let mut digest = DigestBuilder::default();
        rows.iter().try_for_each(|row| digest.add(row)).map_err(|error| error.to_string())?;
        let digest = digest.finish().to_string();
        if digest != owner {
            return Err(format!("the copy is {digest} and the owner's is {owner}"));
        }
        let letters = dead_letter::count(database, consumer).await.map_err(away)?;
        let retries: i64 =
            sqlx::query_scalar("SELECT count(*) FROM retries").fetch_one(database.reader()).await.map_err(away)?;
        if (letters, retries) != (0, 0) {
            return Err(format!("{letters} dead letters, {retries} events to be tried again"));
        }
        let handled = handled(database, consumer).await?;
        let noted = "SELECT event_id FROM inbox WHERE consumer = $1";
        let noted: Vec<String> =
            sqlx::query_scalar(noted).bind(consumer.to_owned()).fetch_all(database.reader()).await.map_err(away)?;
        if handled != *told || BTreeSet::from_iter(noted) != *told {
            let lost = told.difference(&handled).next();
            return Err(format!("{} of {} events were handled; not {lost:?}", handled.len(), told.len()));
        }
        Ok(())
    }
}

/// The ids of auth's events, all of which the bus must have.
async fn told(auth: &Database) -> Result<BTreeSet<String>, String> {
    let entries = event_log::after(auth, &Filter::default(), 0, MAX_EVENTS).await.map_err(|error| error.to_string())?;
    match entries.iter().find(|entry| entry.status != Status::Published) {
        Some(waiting) => Err(format!("auth: {} of {} waits", waiting.message.subject, entries.len())),
        None => Ok(entries.into_iter().map(|entry| entry.message.event_id).collect()),
    }
}

/// The ids of the events that `consumer` has handled; one that was handled twice is an error for good.
async fn handled(database: &Database, consumer: &str) -> Result<BTreeSet<String>, String> {
    let entries = event_log::after(database, &Filter::default(), 0, MAX_EVENTS).await;
    let entries = entries.map_err(|error| error.to_string())?.into_iter();
    let own: Vec<_> = entries.filter(|entry| entry.processed_by.as_deref() == Some(consumer)).collect();
    for entry in &own {
        // The second time changes when it was handled, and not when its row was written.
        assert_eq!(entry.processed_at, Some(entry.at), "{consumer} handled twice: {entry:?}");
        assert_eq!(entry.status, Status::Completed, "{consumer} gave up: {entry:?}");
    }
    Ok(own.into_iter().map(|entry| entry.message.event_id).collect())
}

async fn all_rows(database: &Database) -> sqlx::Result<Vec<Entry>> {
    let (table, mut rows) = (Table::live(&user_cache::SHAPE), Vec::<Entry>::new());
    loop {
        let after = rows.last().map(|row| row.key.clone());
        let page = table.page(database, after.as_deref(), PAGE_ROWS).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

/// What all its processes have in common.
fn settle(builder: Builder) -> Builder {
    let builder = builder.env("SERVICE_API_KEY", SERVICE_KEY).env("EDD_ADMIN_PASSWORD", ADMIN_PASSWORD);
    builder.env("EDD_TRUSTED_PROXIES", "127.0.0.0/8")
}
