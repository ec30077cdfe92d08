//! A message as NATS carries it: our fields are headers, the bytes are untouched.

use async_nats::{HeaderMap, HeaderValue, StatusCode};
use edd_proto::{AnyEvent, Encoding, Envelope};

use crate::bus::BusError;
use crate::message::{Headers, Message, header};

/// What the reply subject of a delivered message tells about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket<'a> {
    stream: &'a str,
    /// 1 for the first time.
    pub delivered: u64,
    /// Its place in the stream.
    pub seq: u64,
    /// Its place among the deliveries to the consumer: without a gap, unless one was lost on the way.
    pub consumer_seq: u64,
    /// When the stream took it.
    stored_at_ns: u64,
}

impl<'a> Ticket<'a> {
    /// Reads `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending>`;
    /// later servers append tokens to the long form.
    pub fn parse(reply: &'a str) -> Option<Self> {
        let tokens: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let [stream, _, delivered, seq, consumer_seq, stored_at, _, ..] =
            (if tokens.len() == 7 { &tokens[..] } else { tokens.get(2..)? })
        else {
            return None;
        };
        Some(Self {
            stream,
            delivered: delivered.parse().ok()?,
            seq: seq.parse().ok()?,
            consumer_seq: consumer_seq.parse().ok()?,
            stored_at_ns: stored_at.parse().ok()?,
        })
    }
}

/// The headers of a message of ours.
///
/// # Errors
/// A field holds what no header can.
pub(super) fn headers(message: &Message) -> Result<HeaderMap, BusError> {
    let mut headers = HeaderMap::new();
    let version = message.version.to_string();
    let fields: [(&str, &str); 6] = [
        (header::EVENT_ID, &message.event_id),
        (header::ENTITY, &message.entity),
        (header::VERSION, &version),
        (header::CONTENT_TYPE, &message.content_type),
        (header::CORRELATION_ID, &message.correlation_id),
        (header::TRACE_PARENT, &message.trace_parent),
    ];
    for (name, value) in fields.into_iter().chain(message.headers.iter()).filter(|(_, value)| !value.is_empty()) {
        let value: HeaderValue = value.parse().map_err(|error| {
            BusError::Refused(format!("event {:?} on {}: header {name}: {error}", message.event_id, message.subject))
        })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Bytes of `headers` on the wire.
pub(super) fn headers_bytes(headers: &HeaderMap) -> usize {
    let values = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let lines: usize = values.map(|(name, value)| AsRef::<[u8]>::as_ref(name).len() + value.as_str().len() + 4).sum();
    "NATS/1.0\r\n\r\n".len() + lines
}

/// Whether it is a message, and not the server's word on a request.
pub(super) fn is_message(message: &async_nats::Message) -> bool {
    message.status.is_none_or(|status| status == StatusCode::OK)
}

/// The message that was delivered. Others publish too: what their headers lack is taken from the event's metadata, and
/// what is no event of ours at all is handed on with a name by which it can be told apart and buried.
pub(super) fn message(delivered: async_nats::Message, ticket: &Ticket<'_>) -> Message {
    let headers = delivered.headers.unwrap_or_default();
    let field = |name| headers.get(name).map(HeaderValue::as_str).filter(|value| !value.is_empty());
    let subject = delivered.subject.into_string();
    let content_type = field(header::CONTENT_TYPE);
    let entity = field(header::ENTITY);
    let version = field(header::VERSION).and_then(|version| version.parse().ok());
    let event_id = field(header::EVENT_ID);
    let envelope = match (event_id, version) {
        (Some(_), Some(_)) => None,
        _ => envelope(&subject, content_type, &delivered.payload),
    };
    let told = |tell: fn(&Envelope) -> String| envelope.as_ref().map(tell);
    let others =
        headers.iter().filter_map(|(name, values)| Some((AsRef::<str>::as_ref(name), values.first()?.as_str())));
    Message {
        headers: Headers::collect(others),
        event_id: event_id
            .map(str::to_owned)
            .or_else(|| told(|envelope| envelope.event_id.to_string()))
            .unwrap_or_else(|| format!("{}-{}-{}", ticket.stream, ticket.seq, ticket.stored_at_ns)),
        entity: entity
            .unwrap_or_else(|| subject.rsplit_once('.').map_or(subject.as_str(), |(entity, _)| entity))
            .to_owned(),
        version: version.or_else(|| envelope.as_ref().map(|envelope| envelope.version)).unwrap_or_default(),
        content_type: content_type.unwrap_or(Encoding::Protobuf.content_type()).to_owned(),
        correlation_id: field(header::CORRELATION_ID)
            .map(str::to_owned)
            .or_else(|| told(|envelope| envelope.correlation_id.clone()))
            .unwrap_or_default(),
        trace_parent: field(header::TRACE_PARENT).unwrap_or_default().to_owned(),
        payload: delivered.payload,
        subject,
    }
}

fn envelope(subject: &str, content_type: Option<&str>, payload: &[u8]) -> Option<Envelope> {
    let encoding = Encoding::from_content_type(content_type).ok()?;
    AnyEvent::decode(subject, encoding, payload).ok()?.envelope().ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edd_proto::auth::UserDeleted;
    use edd_proto::common::EventMetadata;

    use super::*;
    use crate::bus::conformance;

    const REPLY: &str = "$JS.ACK.USERS.mailer.2.17.9.1700000000000000001.4";

    fn delivered(subject: &str, headers: Option<HeaderMap>, payload: Vec<u8>) -> Message {
        let ticket = Ticket::parse(REPLY).expect("a ticket");
        let length = payload.len();
        let (subject, payload) = (subject.into(), Bytes::from(payload));
        let sent =
            async_nats::Message { subject, reply: None, payload, headers, status: None, description: None, length };
        message(sent, &ticket)
    }

    #[test]
    fn tickets_of_all_forms_are_read() {
        let short = Ticket::parse(REPLY);
        let expected =
            Ticket { stream: "USERS", delivered: 2, seq: 17, consumer_seq: 9, stored_at_ns: 1_700_000_000_000_000_001 };
        assert_eq!(short, Some(expected));
        let long = REPLY.replace("$JS.ACK.", "$JS.ACK.hub.AAAA.");
        assert_eq!(Ticket::parse(&long), short);
        assert_eq!(Ticket::parse(&format!("{long}.random")), short);
        for broken in ["", "_INBOX.a", "$JS.ACK.a.b.c", "$JS.ACK.USERS.mailer.2.seventeen.9.1.4"] {
            assert_eq!(Ticket::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_message_of_ours_arrives_as_it_left() {
        let sent = conformance::message("1", "user.a.created");
        let headers = headers(&sent).expect("headers");
        assert_eq!(delivered(&sent.subject, Some(headers), sent.payload.to_vec()), sent);
        let untraced = Message { trace_parent: String::new(), correlation_id: String::new(), ..sent };
        let headers = super::headers(&untraced).expect("headers");
        assert_eq!(delivered(&untraced.subject, Some(headers), untraced.payload.to_vec()), untraced);
    }

    #[test]
    fn headers_cannot_be_broken_out_of() {
        let mut message = conformance::message("1", "user.a.created");
        message.correlation_id = "x\r\nEdd-Version: 9".to_owned();
        let error = headers(&message).expect_err("a refusal").to_string();
        assert!(error.contains("Edd-Correlation-Id") && error.contains("user.a.created"), "{error}");
    }

    #[test]
    fn an_event_without_our_headers_is_known_by_its_metadata() {
        let metadata = EventMetadata {
            event_id: "018d2f4e-3800-7000-8000-000000000001".to_owned(),
            entity_id: "u1".to_owned(),
            version: 3,
            correlation_id: "c".to_owned(),
            ..EventMetadata::default()
        };
        let event = UserDeleted { metadata: Some(metadata), ..UserDeleted::default() };
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, encoding.content_type());
            let payload = encoding.encode(&event).expect("bytes");
            let read = delivered("auth.user.u1.deleted", Some(headers), payload.clone());
            assert_eq!(read.event_id, "018d2f4e-3800-7000-8000-000000000001");
            assert_eq!((read.entity.as_str(), read.version, read.correlation_id.as_str()), ("auth.user.u1", 3, "c"));
            assert_eq!((read.content_type.as_str(), &read.payload[..]), (encoding.content_type(), &payload[..]));
        }
    }

    #[test]
    fn what_is_no_event_keeps_a_name_of_its_own() {
        let read = delivered("auth.user.u1.deleted", None, vec![0xff, 1]);
        assert_eq!((read.event_id.as_str(), read.version), ("USERS-17-1700000000000000001", 0));
        assert_eq!(read.content_type, "application/protobuf");
        let mut headers = HeaderMap::new();
        headers.insert(header::VERSION, "seven");
        headers.insert(header::EVENT_ID, "theirs");
        let read = delivered("odd", Some(headers), Vec::new());
        assert_eq!((read.event_id.as_str(), read.entity.as_str(), read.version), ("theirs", "odd", 0));
    }
}
