//! Requests that another service answers at once. No stream stores them.

use std::fmt;
use std::time::Duration;

use crate::auth::{ValidateTokenRequest, ValidateTokenResponse};
use crate::encoding::Message;

/// A message that one service sends and another answers.
pub trait Request: Message {
    /// The subject to send it on.
    const SUBJECT: &'static str;
    /// How long the asking side waits for the answer.
    const TIMEOUT: Duration;
    /// The answer.
    type Response: Message;
}

impl Request for ValidateTokenRequest {
    const SUBJECT: &'static str = "auth.validate.request";
    const TIMEOUT: Duration = Duration::from_secs(2);
    type Response = ValidateTokenResponse;
}

/// Without the token, which must reach no log.
impl fmt::Debug for ValidateTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateTokenRequest").field("token_bytes", &self.token.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_validated_on_the_subject_of_the_contract() {
        assert_eq!(ValidateTokenRequest::SUBJECT, "auth.validate.request");
        assert_eq!(ValidateTokenRequest::TIMEOUT.as_secs(), 2);
    }

    #[test]
    fn debug_output_holds_no_token() {
        let request = ValidateTokenRequest { token: "ecloud_secret".to_owned() };
        assert_eq!(format!("{request:?}"), "ValidateTokenRequest { token_bytes: 13 }");
    }
}
