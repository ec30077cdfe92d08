//! What goes wrong between here and the share.

use std::fmt;

use hyper::StatusCode;

use crate::exit::{Code, Failure};

/// Longest message that is shown of an answer nobody expected, in characters.
const MAX_SHOWN_CHARS: usize = 200;

#[derive(Debug)]
pub enum Trouble {
    /// No answer, or half of one: the same may be tried again.
    Broken(String),
    /// An answer that says no.
    Refused { status: StatusCode, message: String },
    /// Nothing that the share has to do with.
    Here(Failure),
}

impl Trouble {
    /// What an answer says that is no success.
    pub fn of(status: StatusCode, body: &[u8]) -> Self {
        let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let said = ["detail", "error"].iter().find_map(|key| document[*key].as_str()).map(str::to_owned);
        let shown = || String::from_utf8_lossy(body).chars().take(MAX_SHOWN_CHARS).collect::<String>();
        let message = said.unwrap_or_else(|| format!("the share answered {status} {}", shown()).trim_end().to_owned());
        Self::Refused { status, message }
    }

    pub fn broken(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        Self::Broken(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
    }

    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Refused { status, .. } = self { Some(*status) } else { None }
    }

    /// Whether it may be over in a moment.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Here(_) => false,
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
                    | StatusCode::LOCKED
                    | StatusCode::TOO_MANY_REQUESTS
            ),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(message) | Self::Refused { message, .. } => f.write_str(message),
            Self::Here(failure) => failure.fmt(f),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Here(error.into())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Broken(message) => Self::unavailable(message),
            Trouble::Refused { status: StatusCode::UNAUTHORIZED, message } => {
                Self::new(Code::Failure, format!("{message}\nhint: give a token with --token or EDD_TOKEN"))
            }
            Trouble::Refused { message, .. } => Self::new(Code::Failure, message),
            Trouble::Here(failure) => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_is_wrong_in_either_form() {
        for body in [r#"{"detail":"no room","title":"x"}"#, r#"{"error":"no room"}"#] {
            assert_eq!(Trouble::of(StatusCode::INSUFFICIENT_STORAGE, body.as_bytes()).to_string(), "no room");
        }
        let odd = Trouble::of(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(odd.to_string(), "the share answered 502 Bad Gateway <html>");
        assert!(odd.may_pass() && !Trouble::of(StatusCode::NOT_FOUND, b"").may_pass());
    }

    #[test]
    fn exit_codes_tell_a_refusal_from_an_outage() {
        assert_eq!(Failure::from(Trouble::Broken("x".to_owned())).code, Code::Unavailable);
        let refused = Failure::from(Trouble::of(StatusCode::UNAUTHORIZED, b"{}"));
        assert!(refused.code == Code::Failure && refused.to_string().contains("EDD_TOKEN"), "{refused}");
    }
}
