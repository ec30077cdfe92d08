//! One connection to NATS: calls that end in bounded time, also when the broker is away or says no.

use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::response::Response;
use async_nats::{
    Client, ClientError, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind, Server, ServerAddr,
    ServerError,
};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, timeout};

use crate::bus::{BusError, MAX_ACK_PENDING};

/// Longest wait for the broker's answer to a call.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection that is being made.
const CONNECT_GRACE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Pause before the second try to connect; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that is silent for three of these is dead.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Messages that one subscription holds before they are read; more than one pull or question queue asks for.
const SUBSCRIPTION_MESSAGES: usize = 2 * MAX_ACK_PENDING;
/// Troubles that a call may fall behind by.
const MAX_TROUBLES: usize = 64;

/// How to reach NATS.
#[derive(Clone, Default)]
pub struct JetStreamConfig {
    /// `nats://host:port` or `tls://host:port`; several servers of one cluster are separated by commas.
    pub urls: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// A `.creds` file: a user's JWT and the seed of its key.
    pub credentials_file: Option<PathBuf>,
    /// PEM certificates of the authorities that the server's certificate is checked against, instead of the
    /// machine's. Demands TLS.
    pub tls_ca_file: Option<PathBuf>,
    /// First tokens of the subjects that answers come on, where users may not see each other's: `_INBOX` if absent.
    pub inbox_prefix: Option<String>,
    /// What the server lists the connection as.
    pub name: String,
}

/// Tells no password.
impl Debug for JetStreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, credentials_file, tls_ca_file, name, .. } = self;
        let mut shown = f.debug_struct("JetStreamConfig");
        shown.field("user", user).field("credentials_file", credentials_file).field("tls_ca_file", tls_ca_file);
        shown.field("name", name).finish_non_exhaustive()
    }
}

/// What happened on the connection and may be why an answer will never come.
#[derive(Clone, Debug)]
enum Trouble {
    Disconnected,
    /// The server's words; they quote the subject.
    Denied(String),
}

/// Why a call failed, before anybody has said what that means for the caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is asked for does not exist, or nobody listens.
    Absent(String),
    TimedOut(Duration),
    Bus(BusError),
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl From<Failure> for BusError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Absent(what) => Self::Refused(what),
            Failure::TimedOut(wait) => Self::Unavailable(format!("NATS did not answer within {} ms", wait.as_millis())),
            Failure::Bus(error) => error,
        }
    }
}

/// An error that JetStream answers with: its fault if the code is that of a server's, else ours.
pub(super) fn api_error(error: &async_nats::jetstream::Error) -> BusError {
    let text = format!("NATS: {error}");
    if error.code() >= 500 { BusError::Unavailable(text) } else { BusError::Refused(text) }
}

fn unavailable(error: impl fmt::Display) -> Failure {
    Failure::Bus(BusError::Unavailable(format!("NATS: {error}")))
}

/// Clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    client: Client,
    troubles: broadcast::Sender<Trouble>,
    /// Why the last try to connect failed.
    reason: Arc<Mutex<String>>,
}

impl Connection {
    /// Begins to connect and goes on trying for as long as it takes.
    ///
    /// # Errors
    /// [`BusError::Refused`]: these settings can never work.
    pub async fn open(config: &JetStreamConfig) -> Result<Self, BusError> {
        let addresses = addresses(&config.urls)?;
        let (troubles, _) = broadcast::channel(MAX_TROUBLES);
        let reason = Arc::new(Mutex::new("no server has answered yet".to_owned()));
        let (told, last, failed) = (troubles.clone(), reason.clone(), reason.clone());
        let options = options(config).await?;
        let options = options.event_callback(move |event| {
            note(event, &told, &last);
            std::future::ready(())
        });
        // Called before every try; the only place that tells in full why the one before failed. It chooses no server.
        let options = options.reconnect_to_server_callback(move |servers, _| {
            note_failures(&servers, &failed);
            std::future::ready(None)
        });
        let client = options.connect(addresses).await.map_err(|error| BusError::Refused(format!("NATS: {error}")))?;
        let connection = Self { client, troubles, reason };
        // A broker that is there is used from the first call on; one that is not is waited for by every call.
        let _ = connection.ready().await;
        Ok(connection)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits a moment for a connection that is being made. Nothing is sent without one: the client would keep it and
    /// send it later, when nobody counts on it any more.
    pub async fn ready(&self) -> Result<(), BusError> {
        let deadline = Instant::now() + CONNECT_GRACE;
        while !self.is_connected() {
            if Instant::now() >= deadline {
                let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(BusError::Unavailable(format!("not connected to NATS: {reason}")));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits for what makes an answer to a call on one of `subjects` impossible. To be called before the call is sent.
    pub fn trouble<'a>(&self, subjects: &'a [&'a str]) -> impl Future<Output = BusError> + use<'a> {
        let mut troubles = self.troubles.subscribe();
        async move {
            loop {
                match troubles.recv().await {
                    Ok(Trouble::Disconnected) => {
                        return BusError::Unavailable("the connection to NATS broke".to_owned());
                    }
                    Ok(Trouble::Denied(text)) if names_one_of(&text, subjects) => {
                        return BusError::Refused(format!("NATS: {text}; check the permissions of its user"));
                    }
                    // Of somebody else's call, or so many at once that ours may be lost: the call's own limit remains.
                    Ok(Trouble::Denied(_)) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// Asks and waits for one answer.
    pub async fn request(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Message, Failure> {
        self.ready().await?;
        let subjects = [subject];
        let trouble = self.trouble(&subjects);
        // The limit around it also covers the wait for room in the client's queue.
        let request = Request::new().headers(headers).payload(payload).timeout(None);
        let answer = timeout(wait, self.client.send_request(subject.to_owned(), request));
        let answer = tokio::select! {
            answer = answer => answer,
            error = trouble => return Err(error.into()),
        };
        match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Failure::Absent(format!("nobody listens on {subject}")),
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Failure::Bus(BusError::Refused(format!("{subject}: {error}")))
                }
                RequestErrorKind::TimedOut | RequestErrorKind::Other => unavailable(error),
            }),
            Err(_) => Err(Failure::TimedOut(wait)),
        }
    }

    /// Asks JetStream's API, where `subject` begins after `$JS.API.`; no body is null.
    pub async fn api(&self, subject: &str, body: &Value) -> Result<Value, Failure> {
        let subject = format!("$JS.API.{subject}");
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let answer = self.request(&subject, HeaderMap::new(), body, ANSWER_WAIT).await?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Err { error }) if error.code() == 404 => Err(Failure::Absent(error.to_string())),
            Ok(Response::Err { error }) => Err(api_error(&error).into()),
            Err(error) => Err(unavailable(format!("an answer on {subject} that nobody understands: {error}"))),
        }
    }

    /// Returns when the server has seen all that was sent before, subscriptions included.
    pub async fn settle(&self) -> Result<(), BusError> {
        match self.api("INFO", &Value::Null).await {
            // A denial is an answer too.
            Ok(_) | Err(Failure::Absent(_) | Failure::Bus(BusError::Refused(_))) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

fn addresses(urls: &str) -> Result<Vec<ServerAddr>, BusError> {
    let mut addresses = Vec::new();
    for (index, url) in urls.split(',').map(str::trim).filter(|url| !url.is_empty()).enumerate() {
        // The text may hold a password, so it is not repeated.
        let refused = |reason: &str| BusError::Refused(format!("NATS server {}: {reason}", index + 1));
        let address = url.parse::<ServerAddr>().ok().filter(|address| matches!(address.scheme(), "nats" | "tls"));
        let address = address.ok_or_else(|| refused("its URL is not nats://host:port or tls://host:port"))?;
        if address.has_user_pass() {
            return Err(refused("user and password are settings of their own, not part of the URL"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(BusError::Refused("there is no URL of a NATS server".to_owned()));
    }
    Ok(addresses)
}

async fn options(config: &JetStreamConfig) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .retry_on_initial_connect()
        .ping_interval(PING_EVERY)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .reconnect_delay_callback(pause);
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if let Some(user) = &config.user {
        options = options.user_and_password(user.clone(), config.password.clone().unwrap_or_default());
    }
    if let Some(file) = &config.credentials_file {
        let read = options.credentials_file(file).await;
        options = read.map_err(|error| BusError::Refused(format!("NATS credentials {}: {error}", file.display())))?;
    }
    if let Some(file) = &config.tls_ca_file {
        // The client would only say so at each of its tries.
        let read = tokio::fs::read(file).await;
        read.map_err(|error| BusError::Refused(format!("NATS certificate authority {}: {error}", file.display())))?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    Ok(options)
}

fn pause(attempts: usize) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow((attempts - 2).min(16) as u32)),
    }
}

fn note(event: Event, troubles: &broadcast::Sender<Trouble>, reason: &Mutex<String>) {
    let because = |text: String| *reason.lock().unwrap_or_else(PoisonError::into_inner) = text;
    // That nobody waits for it is no failure.
    let tell = |trouble| drop(troubles.send(trouble));
    match event {
        Event::Disconnected => {
            because("the connection broke".to_owned());
            tell(Trouble::Disconnected);
        }
        Event::ServerError(ServerError::Other(text)) if text.starts_with("Permissions Violation") => {
            tracing::error!(reason = text, "NATS denies what this service needs");
            tell(Trouble::Denied(text));
        }
        Event::ServerError(error) => because(error.to_string()),
        Event::ClientError(ClientError::Other(kind)) => {
            // More may be known by now.
            let mut reason = reason.lock().unwrap_or_else(PoisonError::into_inner);
            if !reason.contains(&kind) {
                *reason = kind;
            }
        }
        Event::ClientError(error) => because(error.to_string()),
        Event::SlowConsumer(subscription) => {
            tracing::warn!(subscription, "NATS sent more than there is room for; the rest is dropped");
        }
        Event::Connected | Event::LameDuckMode | Event::Draining | Event::Closed => {}
    }
}

fn note_failures(servers: &[Server], reason: &Mutex<String>) {
    let told = |server: &Server| {
        let error = server.last_error.as_ref()?;
        Some(format!("{}:{}: {error}", server.addr.host(), server.addr.port()))
    };
    let failures: Vec<_> = servers.iter().filter_map(told).collect();
    if !failures.is_empty() {
        *reason.lock().unwrap_or_else(PoisonError::into_inner) = failures.join("; ");
    }
}

/// `Permissions Violation for Publish to "auth.user.a.created"`
fn names_one_of(denial: &str, subjects: &[&str]) -> bool {
    let quoted = denial.split('"').nth(1).unwrap_or_default();
    subjects.contains(&quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<_> = [1, 2, 3, 4, 9, 1000].map(|attempts| pause(attempts).as_millis()).into();
        assert_eq!(pauses, [0, 50, 100, 200, 5000, 5000]);
    }

    #[test]
    fn addresses_that_cannot_work_are_refused_and_no_password_is_told() {
        assert_eq!(addresses("nats://a:1, tls://b:2,c").expect("addresses").len(), 3);
        for urls in ["", " , ", "nats://user:secret@host:1", "secret://host", "nats://secret host"] {
            let error = addresses(urls).expect_err(urls).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        let config = JetStreamConfig {
            urls: "nats://secret@host".to_owned(),
            password: Some("secret".to_owned()),
            ..JetStreamConfig::default()
        };
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn a_denial_concerns_the_subject_that_it_quotes() {
        let denial = "Permissions Violation for Publish to \"user.a.created\"";
        assert!(names_one_of(denial, &["user.b.created", "user.a.created"]));
        assert!(!names_one_of(denial, &["user.a", "Permissions Violation for Publish to "]));
        assert!(names_one_of("Permissions Violation for Subscription to \"x\" using queue \"edd\"", &["x"]));
    }
}
