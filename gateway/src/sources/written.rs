//! routes.yaml as people write it, key by key. The doc comments are the schema's descriptions.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::address::{RedirectUrl, Scheme, TargetUrl};
use super::decode::{Context, FromNode, Given, List, form};
use super::node::{Node, Value};
use super::scalar::{ByteSize, EditedHeader, FileName, HeaderText, RedirectStatus, RouteName, Wait, Weight};
use crate::route::{HostName, HostPattern, PathPrefix};

/// Most routes in one file.
pub(super) const MAX_ROUTES: usize = 100_000;
/// Most targets of one route.
const MAX_TARGETS: usize = 64;
/// Most headers in one `set`, `add` or `remove`.
const MAX_HEADERS: usize = 64;

form! {
    /// Which requests the gateway takes, and where each goes.
    #[schemars(title = "routes.yaml")]
    struct FileForm("a mapping with the key `routes`") requires ["routes"] {
        /// The routes. The most exact host wins, then the longest path; their order does not matter.
        routes: List<RouteForm, MAX_ROUTES>,
    }
}

form! {
    /// One route: the requests it takes, and what happens to them.
    #[schemars(title = "Route", extend("anyOf" = [
        { "required": ["target"] }, { "required": ["targets"] }, { "required": ["redirect"] }
    ]))]
    struct RouteForm("a route, a mapping with keys such as `host` and `target`") requires [] {
        /// The host: a name, `*.suffix` for every name below it, or `*` for any. Quote a `*`.
        #[schemars(extend("default" = "*"))]
        host: HostPattern,
        /// A path prefix, on segment boundaries: `/api` takes `/api` and `/api/x`, never `/apix`.
        #[schemars(extend("default" = "/"))]
        path: PathPrefix,
        /// Where requests go: `host:port`. A scheme (`http://`, `h2c://`, `https://`) sets the protocol.
        target: TargetUrl,
        /// Several targets that share the requests by weight, in place of `target`.
        #[schemars(extend("minItems" = 1))]
        targets: List<TargetForm, MAX_TARGETS>,
        /// Take `path` off before the request goes to the target.
        #[schemars(extend("default" = false))]
        strip_prefix: bool,
        /// Name of the route in metrics, logs and lists; host and path when absent. Unique.
        name: RouteName,
        /// How the targets are spoken to: HTTP/1.1, HTTP/2 in the clear (gRPC), or TLS.
        #[schemars(extend("default" = "h1"))]
        protocol: Scheme,
        /// How the targets' certificates are verified; only with `https`.
        tls: TlsForm,
        /// How long the gateway waits.
        timeouts: TimeoutsForm,
        /// Edits of the request before it goes to the target. `Host` may be set, not added or removed.
        request_headers: HeadersForm,
        /// Edits of the response before it goes to the client.
        response_headers: HeadersForm,
        /// `https` sends plain HTTP to HTTPS; a mapping answers every request with a redirect.
        redirect: RedirectForm,
        /// Largest request body, in bytes or with a unit; unlimited when absent.
        body_limit: ByteSize,
        /// Whether WebSocket upgrades pass.
        #[schemars(extend("default" = true))]
        websocket: bool,
        /// Ask clients for a certificate. Holds for the whole host.
        client_cert: ClientCertForm,
    }
}

form! {
    /// One of several targets.
    struct TargetForm("a target, a mapping such as `{target: app:8080, weight: 1}`") requires ["target"] {
        /// `host:port`, as in the route's `target`.
        target: TargetUrl,
        /// Share of the requests; 0 takes none.
        #[schemars(extend("default" = 1))]
        weight: Weight,
    }
}

form! {
    /// How certificates of targets are verified.
    struct TlsForm("a mapping such as `{ca_file: ca.pem}`") requires [] {
        /// False accepts any certificate.
        #[schemars(extend("default" = true))]
        verify: bool,
        /// The name to ask for and to verify; the target's host when absent.
        server_name: HostName,
        /// PEM file with the authorities to trust, in place of the system's. Relative to this file.
        ca_file: FileName,
    }
}

form! {
    /// Durations with a unit, from `1ms` to `7days`.
    struct TimeoutsForm("a mapping such as `{read: 30s}`") requires [] {
        /// To open a connection to the target, TLS included.
        #[schemars(extend("default" = "5s"))]
        connect: Wait,
        /// Without a byte from the target while it owes an answer.
        #[schemars(extend("default" = "60s"))]
        read: Wait,
        /// Without the target taking a byte.
        #[schemars(extend("default" = "60s"))]
        write: Wait,
        /// Without a byte either way on a WebSocket or another stream.
        #[schemars(extend("default" = "1h"))]
        stream_idle: Wait,
    }
}

form! {
    /// Header edits, applied in the order remove, set, add. Headers of one connection, such as
    /// Connection or Content-Length, cannot be edited.
    struct HeadersForm("a mapping with the keys `set`, `add` and `remove`") requires [] {
        /// Headers to set, in place of those that are there.
        set: HeaderMap,
        /// Headers to add to those that are there.
        add: HeaderMap,
        /// Headers to remove.
        remove: List<EditedHeader, MAX_HEADERS>,
    }
}

form! {
    /// A redirect of every request.
    struct RedirectToForm("a mapping such as `{to: https://www.example.com}`") requires ["to"] {
        /// Where to: scheme and host; path and query of the request are kept, unless `exact`.
        to: RedirectUrl,
        /// The status.
        #[schemars(extend("default" = 301))]
        status: RedirectStatus,
        /// `to` is the whole URL; nothing of the request is kept.
        #[schemars(extend("default" = false))]
        exact: bool,
    }
}

form! {
    /// TLS client authentication.
    struct ClientCertForm("a mapping such as `{ca_file: clients.pem}`") requires ["ca_file"] {
        /// PEM file with the authorities that sign the clients' certificates. Relative to this file.
        ca_file: FileName,
        /// False lets clients without a certificate in; a bad one is always refused.
        #[schemars(extend("default" = true))]
        required: bool,
    }
}

/// The two forms of `redirect`.
#[derive(Debug)]
pub(super) enum RedirectForm {
    Https,
    To(RedirectToForm),
}

impl FromNode for RedirectForm {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Mapping(_) => RedirectToForm::from_node(node, cx).map(Self::To),
            Value::Scalar { text, .. } if text == "https" => Some(Self::Https),
            Value::Scalar { text, .. } if text.contains("://") => {
                let hint = format!("write `redirect: {{to: \"{text}\"}}`");
                cx.error(&node.span, "a redirect to a URL is a mapping", &hint);
                None
            }
            _ => cx.wrong_type(node, "`https`, or a mapping such as `{to: https://www.example.com}`"),
        }
    }
}

impl JsonSchema for RedirectForm {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RedirectForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let to = generator.subschema_for::<RedirectToForm>();
        json_schema!({ "anyOf": [{ "const": "https" }, to] })
    }
}

/// Header names and their values.
#[derive(Debug)]
pub(super) struct HeaderMap(pub Vec<(Given<EditedHeader>, HeaderText)>);

impl FromNode for HeaderMap {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let entries = cx.mapping(node, "a mapping of header names and values")?;
        if let Some(first) = entries.get(MAX_HEADERS) {
            let message = format!("the mapping has {} headers", entries.len());
            cx.error(&first.key_span, &message, &format!("keep it to {MAX_HEADERS}"));
            return None;
        }
        let mut headers = Vec::with_capacity(entries.len());
        for entry in entries {
            let text = Value::Scalar { text: entry.key.clone(), plain: false };
            let name = EditedHeader::from_node(&Node { span: entry.key_span.clone(), value: text }, cx);
            let value = HeaderText::from_node(&entry.value, cx);
            if let (Some(name), Some(value)) = (name, value) {
                headers.push((Given { span: entry.key_span.clone(), value: name }, value));
            }
        }
        Some(Self(headers))
    }
}

impl JsonSchema for HeaderMap {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HeaderMap".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (names, values) = (generator.subschema_for::<EditedHeader>(), generator.subschema_for::<HeaderText>());
        json_schema!({
            "type": "object",
            "propertyNames": names,
            "additionalProperties": values,
            "maxProperties": MAX_HEADERS,
        })
    }
}
