//! What went wrong inside the engine, in the gateway's own words.

use pingora_error::{Error, ErrorSource, ErrorType};

use crate::reason::Reason;

/// The reason behind an error of pingora's.
pub fn reason(error: &Error) -> Reason {
    match error.esource() {
        ErrorSource::Downstream => downstream(error.etype()),
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Internal | ErrorSource::Unset => match error.etype() {
            // Connection errors carry no source until pingora has connected once.
            ErrorType::InternalError | ErrorType::UnknownError => Reason::Internal,
            other => upstream(other),
        },
    }
}

fn downstream(kind: &ErrorType) -> Reason {
    match kind {
        ErrorType::ReadTimedout => Reason::BodyTimeout,
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::WriteTimedout
        | ErrorType::ConnectionClosed
        | ErrorType::ConnectError
        | ErrorType::H2Error
        | ErrorType::InvalidH2 => Reason::ClientClosed,
        _ => Reason::BadBody,
    }
}

fn upstream(kind: &ErrorType) -> Reason {
    match kind {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Reason::UpstreamConnectTimeout,
        ErrorType::ConnectRefused => Reason::UpstreamRefused,
        ErrorType::TLSWantX509Lookup
        | ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Reason::UpstreamTls,
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Reason::UpstreamTimeout,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => Reason::UpstreamClosed,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => Reason::UpstreamInvalidResponse,
        ErrorType::H2Error | ErrorType::H2Downgrade | ErrorType::InvalidH2 => Reason::UpstreamH2,
        ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError | ErrorType::BindError => {
            Reason::UpstreamUnreachable
        }
        _ => Reason::UpstreamInvalidResponse,
    }
}
