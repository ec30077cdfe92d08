//! Answers `auth.validate.request`: whether a token is good, for programs that cannot tell by themselves.

use std::sync::Arc;

use bytes::Bytes;
use edd_events::bus::{Bus, BusError, Question};
use edd_proto::auth::{Scope, ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{Encoding, Request};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Identity, Service, Via, timestamp};
use crate::auth::error::AuthError;

/// Questions that are answered at once.
const CONCURRENT_ANSWERS: usize = 32;

/// Answers questions until `stop`, or until the bus asks no more.
///
/// # Errors
/// The bus does not let this process serve.
pub async fn respond(service: Service, bus: Arc<dyn Bus>, stop: CancellationToken) -> Result<(), BusError> {
    let mut questions = bus.serve(ValidateTokenRequest::SUBJECT).await?;
    let places = Arc::new(Semaphore::new(CONCURRENT_ANSWERS));
    loop {
        let question = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            question = questions.recv() => question,
        };
        let Some(question) = question else { return Ok(()) };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let service = service.clone();
        tokio::spawn(async move {
            answer(&service, question).await;
            drop(place);
        });
    }
}

async fn answer(service: &Service, question: Question) {
    let answered = tokio::time::timeout(ValidateTokenRequest::TIMEOUT, service.validate(&question.payload)).await;
    let response = answered.unwrap_or_else(|_| refusal("the answer took too long"));
    match Encoding::Protobuf.encode(&response) {
        // Who asked may have gone.
        Ok(bytes) => drop(question.reply.send(Bytes::from(bytes))),
        Err(error) => tracing::error!(%error, "a token's validation cannot be sent"),
    }
}

impl Service {
    /// The answer to an encoded [`ValidateTokenRequest`].
    pub async fn validate(&self, question: &[u8]) -> ValidateTokenResponse {
        let Ok(request) = Encoding::Protobuf.decode::<ValidateTokenRequest>(question) else {
            return refusal("the question is no auth.ValidateTokenRequest");
        };
        match self.identify(&request.token).await {
            Ok(identity) => approval(&identity),
            Err(error @ (AuthError::Unauthenticated(_) | AuthError::Token(_))) => refusal(&error.to_string()),
            Err(error) => {
                tracing::error!(%error, "a token cannot be validated");
                refusal("the token cannot be checked now")
            }
        }
    }
}

fn approval(identity: &Identity) -> ValidateTokenResponse {
    let (record_id, expires_at) = match &identity.via {
        Via::Session(session) => (&session.id, Some(session.expires_at)),
        Via::ApiToken(token) => (&token.id, token.expires_at),
    };
    let scopes = match &identity.via {
        Via::Session(_) => Vec::new(),
        Via::ApiToken(token) => token
            .scopes
            .iter()
            .map(|(resource, actions)| Scope {
                resource: resource.to_owned(),
                actions: actions.map(str::to_owned).collect(),
            })
            .collect(),
    };
    ValidateTokenResponse {
        valid: true,
        user_id: identity.user.number,
        username: identity.user.username.clone(),
        user_uid: identity.user.id.to_string(),
        scopes,
        record_id: record_id.to_string(),
        expires_at: expires_at.map(timestamp),
        error: String::new(),
    }
}

fn refusal(error: &str) -> ValidateTokenResponse {
    ValidateTokenResponse { error: error.to_owned(), ..Default::default() }
}
