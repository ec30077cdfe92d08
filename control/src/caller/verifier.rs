//! From a token to a caller: by the signature, or by asking the auth service once.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use edd_events::bus::{Bus, BusError};
use edd_events::clock::{Clock, Micros, micros};
use edd_events::database::Database;
use edd_proto::auth::{ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{Encoding, Request, UserId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access_token::{LEEWAY_SECONDS, MAX_TOKEN_BYTES, TokenError};
use crate::caller::cache::{Cache, Key};
use crate::caller::keys::{Keys, LoadError};
use crate::caller::{Caller, Scopes};
use crate::revocation::Revocations;

/// Begins every API token.
pub const API_TOKEN_PREFIX: &str = "ecloud_";
/// What follows: 256 bits of base64url.
const API_TOKEN_CHARS: usize = 43;
/// How long a good API token is believed without asking again. Revocations count at once all the same.
pub const API_TOKEN_TTL: Duration = Duration::from_secs(300);
/// How long a bad one is refused without asking again.
const REFUSED_TTL: Duration = Duration::from_secs(5);
/// Questions to the auth service at one time.
const MAX_QUESTIONS: usize = 32;
/// Sets of four that the caches have: 8,192 good tokens, and 2,048 that are none.
const KNOWN_SETS: usize = 2048;
const REFUSED_SETS: usize = 512;
/// How often keys are loaded anew, and ended revocations are forgotten, whatever happens.
const MAINTAIN_EVERY: Duration = Duration::from_secs(600);

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the API token is not valid: it may have expired or been revoked")]
    ApiToken,
    #[error("the session has ended: sign in again")]
    Revoked,
    #[error("it is not known yet what is revoked: the auth service has not been reached since this service is new")]
    Unprepared,
    /// The token's key is not known, and nobody can say now whether it is a new one.
    #[error(transparent)]
    Keys(#[from] LoadError),
    #[error("too many API tokens are being validated")]
    Busy,
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The auth service said something that cannot be.
    #[error("the answer to a token's validation: {0}")]
    Answer(String),
}

/// Turns tokens into callers. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    revoked: Revocations,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    known: Cache<Caller>,
    refused: Cache<()>,
    questions: Semaphore,
}

impl Verifier {
    pub fn new(keys: Keys, revoked: Revocations, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Self {
        let (known, refused) = (Cache::new(KNOWN_SETS), Cache::new(REFUSED_SETS));
        let questions = Semaphore::new(MAX_QUESTIONS);
        Self(Arc::new(Inner { keys, revoked, bus, clock, known, refused, questions }))
    }

    /// What is revoked, as this verifier sees it.
    pub fn revocations(&self) -> &Revocations {
        &self.0.revoked
    }

    /// The caller that `token` stands for: an access token, or an API token.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(token.len()).into());
        }
        let now = self.0.clock.now();
        let key = Key::of(token, self.0.keys.current().generation);
        let caller = match self.0.known.get(key, now) {
            Some(caller) => caller,
            None if token.starts_with(API_TOKEN_PREFIX) => self.ask(token, key, now).await?,
            None => self.read(token, now).await?,
        };
        match &self.0.revoked {
            revoked if revoked.is_revoked(caller.user, &caller.session) => Err(Refusal::Revoked),
            revoked if !revoked.is_complete() => Err(Refusal::Unprepared),
            _ => Ok(caller),
        }
    }

    /// Keeps keys fresh and revocations few until told to stop. `database` is the one behind the revocations.
    pub async fn run(self, database: Database, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(MAINTAIN_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.0.clock.now();
            if let Err(error) = self.0.keys.refresh(now).await {
                tracing::warn!(%error, "the keys that are held are used on");
            }
            if let Err(error) = self.0.revoked.prune(&database, now).await {
                tracing::warn!(%error, "ended revocations are kept for now");
            }
        }
    }

    async fn read(&self, token: &str, now: Micros) -> Result<Caller, Refusal> {
        let keys = self.0.keys.current();
        let (claims, generation) = match keys.set.verify(token, now) {
            Err(TokenError::UnknownKey) => {
                drop(keys);
                self.0.keys.reload(now).await?;
                let keys = self.0.keys.current();
                (keys.set.verify(token, now)?, keys.generation)
            }
            claims => (claims?, keys.generation),
        };
        let until = claims.exp.saturating_add(LEEWAY_SECONDS).saturating_mul(1_000_000);
        let caller = Caller::from(claims);
        self.0.known.put(Key::of(token, generation), caller.clone(), until);
        Ok(caller)
    }

    async fn ask(&self, token: &str, key: Key, now: Micros) -> Result<Caller, Refusal> {
        if !is_api_token(token) {
            return Err(TokenError::Malformed.into());
        }
        if self.0.refused.get(key, now).is_some() {
            return Err(Refusal::ApiToken);
        }
        let question = ValidateTokenRequest { token: token.to_owned() };
        let question = Encoding::Protobuf.encode(&question).map_err(|error| Refusal::Answer(error.to_string()))?;
        let (subject, wait) = (ValidateTokenRequest::SUBJECT, ValidateTokenRequest::TIMEOUT);
        let permit = tokio::time::timeout(wait, self.0.questions.acquire()).await.map_err(|_| Refusal::Busy)?;
        let answer = self.0.bus.ask(subject, Bytes::from(question), wait).await;
        drop(permit);
        let answer: ValidateTokenResponse =
            Encoding::Protobuf.decode(&answer?).map_err(|error| Refusal::Answer(error.to_string()))?;
        if !answer.valid {
            tracing::debug!(reason = answer.error, "an API token is refused");
            self.0.refused.put(key, (), now.saturating_add(micros(REFUSED_TTL)));
            return Err(Refusal::ApiToken);
        }
        let until = until(&answer, now)?;
        let caller = caller(answer)?;
        self.0.known.put(key, caller.clone(), until);
        Ok(caller)
    }
}

fn is_api_token(token: &str) -> bool {
    let is_url_safe = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let random = token.strip_prefix(API_TOKEN_PREFIX);
    random.is_some_and(|random| random.len() == API_TOKEN_CHARS && random.bytes().all(is_url_safe))
}

/// How long an answer counts: no longer than its token.
fn until(answer: &ValidateTokenResponse, now: Micros) -> Result<Micros, Refusal> {
    let longest = now.saturating_add(micros(API_TOKEN_TTL));
    let Some(at) = answer.expires_at else { return Ok(longest) };
    let at = std::time::SystemTime::try_from(at).map_err(|error| Refusal::Answer(error.to_string()))?;
    Ok(longest.min(micros(at.duration_since(UNIX_EPOCH).unwrap_or_default())))
}

fn caller(answer: ValidateTokenResponse) -> Result<Caller, Refusal> {
    let impossible = |what: String| Refusal::Answer(what);
    if answer.record_id.is_empty() {
        // Nobody could revoke it.
        return Err(impossible("a good token without the id of its record".to_owned()));
    }
    let username: Arc<str> = answer.username.into();
    Ok(Caller {
        user: answer.user_uid.parse::<UserId>().map_err(|error| impossible(error.to_string()))?,
        number: answer.user_id,
        display_name: username.clone(),
        username,
        is_admin: false,
        session: answer.record_id.into(),
        scopes: Some(Scopes::new(answer.scopes).map_err(|error| impossible(error.to_string()))?),
    })
}
