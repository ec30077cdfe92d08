//! The gateway's own answers, in the form that the client reads: HTML, problem+json or gRPC.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::decision::Answer;
use crate::exchange::RequestId;
use crate::policy::forwarding::X_REQUEST_ID;
use crate::reason::Reason;

/// An answer ready to be written by any engine.
#[derive(Debug)]
pub struct Rendered {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Problem,
    Grpc,
}

/// Renders `answer` for a client that sent `request` headers.
pub fn render(answer: &Answer, request: &HeaderMap, id: &RequestId) -> Rendered {
    let form = form_for(request);
    let mut headers = Vec::with_capacity(8);
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.push((name, value));
        }
    };
    put(X_REQUEST_ID, id.as_str());
    put(header::SERVER, "edd");
    put(header::CACHE_CONTROL, "no-store");
    if let Some(location) = &answer.location {
        put(header::LOCATION, location);
    }
    if let Some(seconds) = retry_after(answer.reason) {
        put(header::RETRY_AFTER, seconds);
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        put(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    let (status, body) = match form {
        Form::Grpc => {
            put(header::CONTENT_TYPE, "application/grpc");
            put(HeaderName::from_static("grpc-status"), grpc_status(answer.reason));
            put(HeaderName::from_static("grpc-message"), answer.reason.as_str());
            (StatusCode::OK, String::new())
        }
        Form::Html => {
            put(header::CONTENT_TYPE, "text/html; charset=utf-8");
            put(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
            (answer.status, html(answer, id))
        }
        Form::Problem => {
            put(header::CONTENT_TYPE, "application/problem+json");
            (answer.status, problem(answer, id))
        }
    };
    put(header::CONTENT_LENGTH, &body.len().to_string());
    Rendered { status, headers, body: body.into() }
}

impl Rendered {
    /// The bytes of an HTTP/1.1 answer after which the connection closes.
    pub fn into_http1_close(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.body.len());
        let reason = self.status.canonical_reason().unwrap_or("Error");
        out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", self.status.as_u16()).as_bytes());
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"connection: close\r\n\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// After how many seconds it makes sense to ask again, if it does without anybody doing something about it.
fn retry_after(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::ContainerStopped | Reason::ContainerFailed => None,
        Reason::ContainerStarting | Reason::ContainerWaking | Reason::ContainersUnknown => Some("2"),
        Reason::WakeQueueFull | Reason::WakeFailed | Reason::WakeTimeout => Some("5"),
        _ => (reason.status() == StatusCode::SERVICE_UNAVAILABLE).then_some("1"),
    }
}

/// Whether a person may leave the page open until the answer is there.
fn reloads_itself(reason: Reason) -> bool {
    matches!(reason, Reason::ContainerStarting | Reason::ContainerWaking)
}

fn form_for(request: &HeaderMap) -> Form {
    let value = |name| request.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    if value(header::CONTENT_TYPE).starts_with(b"application/grpc") {
        return Form::Grpc;
    }
    match memchr::memmem::find(value(header::ACCEPT), b"text/html") {
        Some(_) => Form::Html,
        None => Form::Problem,
    }
}

/// The nearest of gRPC's status codes, after its mapping of HTTP statuses.
fn grpc_status(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoute | Reason::MethodNotAllowed => "12",
        Reason::NoContainer => "5",
        Reason::HttpsDisabled => "7",
        Reason::WakeTimeout | Reason::UpstreamTimeout | Reason::UpstreamConnectTimeout | Reason::HeaderTimeout => "4",
        Reason::BodyTooLarge | Reason::HeadersTooLarge => "8",
        Reason::ClientCertificate => "16",
        _ if reason.status().is_client_error() => "3",
        Reason::Internal => "13",
        _ => "14",
    }
}

/// RFC 9457.
fn problem(answer: &Answer, id: &RequestId) -> String {
    serde_json::json!({
        "type": "about:blank",
        "title": answer.status.canonical_reason().unwrap_or("Error"),
        "status": answer.status.as_u16(),
        "detail": format!("{} {}.", answer.reason.explain(), sentence(&answer.detail)),
        "reason": answer.reason,
        "request_id": id.as_str(),
    })
    .to_string()
}

/// `text` with a capital first letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn html(answer: &Answer, id: &RequestId) -> String {
    let status = answer.status.as_u16();
    let title = answer.status.canonical_reason().unwrap_or("Error");
    let reload = match retry_after(answer.reason).filter(|_| reloads_itself(answer.reason)) {
        Some(seconds) => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
        None => String::new(),
    };
    let mut page = String::with_capacity(1024);
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">{reload}\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{status} {title}</title>\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;\
         padding:0 1.5rem}}h1{{font-size:1.5rem}}code{{font-size:.9em}}footer{{margin-top:2rem;opacity:.7;font-size:.85rem}}\
         </style></head><body><main><h1>{status} {title}</h1><p>{}</p><p>{}.</p></main>\
         <footer><code>{}</code> &middot; request <code>{}</code></footer></body></html>",
        answer.reason.explain(),
        escape(&sentence(&answer.detail)),
        answer.reason.as_str(),
        escape(id.as_str()),
    );
    page
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(answer: &Answer, name: &str, value: &str) -> (Rendered, String) {
        let mut request = HeaderMap::new();
        request.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        let rendered = render(answer, &request, &RequestId::generate());
        let body = String::from_utf8(rendered.body.to_vec()).unwrap();
        (rendered, body)
    }

    #[test]
    fn speaks_the_clients_language() {
        let answer = Answer::new(Reason::NoRoute, "<b>");
        let (page, body) = rendered(&answer, "accept", "text/html,*/*");
        assert_eq!(page.status, 404);
        assert!(body.contains("no_route") && body.contains("&lt;b&gt;") && !body.contains("<b>"));
        assert!(!body.contains("refresh"));
        let (waking, body) = rendered(&Answer::new(Reason::ContainerWaking, "soon"), "accept", "text/html");
        assert!(waking.status == 503 && body.contains("http-equiv=\"refresh\" content=\"2\""), "{body}");
        let (stopped, _) = rendered(&Answer::new(Reason::ContainerStopped, "stopped"), "accept", "text/html");
        assert!(stopped.headers.iter().all(|(name, _)| *name != header::RETRY_AFTER));
        let (_, body) = rendered(&answer, "accept", "*/*");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((json["status"].as_u64(), json["reason"].as_str()), (Some(404), Some("no_route")));
        let (grpc, body) = rendered(&answer, "content-type", "application/grpc+proto");
        assert_eq!((grpc.status.as_u16(), body.as_str()), (200, ""));
        assert!(grpc.headers.iter().any(|(name, value)| name == "grpc-status" && value == "12"));
    }
}
