//! From what is written to routes: the rules that span several keys, or several routes.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use super::address::{Scheme, TargetUrl};
use super::decode::{Context, Field, Given};
use super::node::Span;
use super::scalar::{FileName, RedirectStatus, Wait, Weight};
use super::written::{
    ClientCertForm, FileForm, HeaderMap, HeadersForm, RedirectForm, RedirectToForm, RouteForm, TargetForm,
    TimeoutsForm, TlsForm,
};
use crate::route::{
    Action, ClientAuth, HeaderEdits, HostPattern, PathPrefix, Protocol, Redirect, Route, RouteId, Source, Target,
    Timeouts, UpstreamTls,
};

/// A route, and how it was written.
pub(super) struct Declared {
    pub route: Route,
    pub form: RouteForm,
    /// Its first key.
    pub span: Span,
}

/// The routes of a file; those that are wrong are left out, with their errors in `cx`.
pub(super) fn build(file: FileForm, root: &Span, cx: &mut Context<'_>) -> Vec<Declared> {
    let base = Path::new(cx.source.origin()).parent().unwrap_or(Path::new("")).to_owned();
    let routes = match file.routes {
        Field::Given { value, .. } => value.items,
        Field::Broken => return Vec::new(),
        Field::Absent => {
            cx.error(root, "the key `routes` is missing", "begin the file with `routes:`, or `routes: []` for none");
            return Vec::new();
        }
    };
    let mut declared: Vec<Declared> = routes
        .into_iter()
        .filter_map(|Given { span, value: form }| {
            let route = route(&form, &span, &base, cx)?;
            Some(Declared { route, form, span })
        })
        .collect();
    name(&mut declared, cx);
    agree_on_client_certs(&declared, cx);
    declared
}

fn route(form: &RouteForm, span: &Span, base: &Path, cx: &mut Context<'_>) -> Option<Route> {
    // Every part is read before one that is missing ends it: all errors at once.
    let host = or_default(&form.host, || HostPattern::Any);
    let path = or_default(&form.path, || PathPrefix::parse("/").expect("the root is a prefix"));
    let action = action(form, span, base, cx);
    let timeouts = timeouts(&form.timeouts);
    let request_headers = header_edits(&form.request_headers, Direction::Request, cx);
    let response_headers = header_edits(&form.response_headers, Direction::Response, cx);
    let client_auth = client_auth(&form.client_cert, base, cx);
    let strip_prefix = or_default(&form.strip_prefix, || false);
    let websocket = or_default(&form.websocket, || true);
    Some(Route {
        strip_prefix: strip_prefix?,
        https_only: matches!(form.redirect.get(), Some(RedirectForm::Https)),
        websocket: websocket?,
        max_body_bytes: form.body_limit.get().map(|size| size.0),
        timeouts,
        request_headers,
        response_headers,
        client_auth,
        ..Route::new(host?, path?, action?, Source::File)
    })
}

/// The value, or its default when the key is absent; none when it is broken.
fn or_default<T: Clone>(field: &Field<T>, default: impl FnOnce() -> T) -> Option<T> {
    match field {
        Field::Absent => Some(default()),
        Field::Broken => None,
        Field::Given { value, .. } => Some(value.clone()),
    }
}

fn action(form: &RouteForm, span: &Span, base: &Path, cx: &mut Context<'_>) -> Option<Action> {
    match &form.redirect {
        Field::Given { value: RedirectForm::To(to), span, .. } => {
            refuse_beside_redirect(form, cx);
            return redirect(to, span, cx).map(Action::Redirect);
        }
        Field::Broken => return None,
        _ => {}
    }
    let targets = targets(form, span, cx);
    let scheme = scheme(form, targets.as_deref().unwrap_or_default(), cx);
    let tls = tls(&form.tls, scheme, base, cx);
    let protocol = match scheme? {
        Scheme::H1 => Protocol::H1,
        Scheme::H2c => Protocol::H2c,
        Scheme::Https => Protocol::Https(tls?),
    };
    let target = |given: Given<(TargetUrl, u16)>| Target { authority: given.value.0.authority, weight: given.value.1 };
    Some(Action::Proxy { targets: targets?.into_iter().map(target).collect(), protocol })
}

fn refuse_beside_redirect(form: &RouteForm, cx: &mut Context<'_>) {
    let keys = [
        ("target", form.target.key()),
        ("targets", form.targets.key()),
        ("protocol", form.protocol.key()),
        ("tls", form.tls.key()),
    ];
    for (name, key) in keys {
        if let Some(key) = key {
            let hint = "remove it, or write `redirect: https` to send plain HTTP alone to HTTPS";
            cx.error(key, &format!("a route that redirects everything has no `{name}`"), hint);
        }
    }
}

fn redirect(form: &RedirectToForm, span: &Span, cx: &mut Context<'_>) -> Option<Redirect> {
    if form.to.is_absent() {
        cx.error(span, "the redirect has no `to`", "add `to: https://www.example.com`");
    }
    let exact = or_default(&form.exact, || false);
    let status = or_default(&form.status, || RedirectStatus(301));
    let Field::Given { span, value: to, .. } = &form.to else { return None };
    let (exact, status) = (exact?, status?);
    let to = match to.rest.as_str() {
        "" | "/" => to.origin.clone(),
        rest if exact => format!("{}{rest}", to.origin),
        _ => {
            let hint = format!("write `{}` to keep path and query of the request, or add `exact: true`", to.origin);
            cx.error(span, "the URL has a path, but the redirect is not `exact`", &hint);
            return None;
        }
    };
    Some(Redirect { to: to.into(), exact, status: status.0 })
}

/// The targets with their weights, whichever key holds them.
fn targets(form: &RouteForm, span: &Span, cx: &mut Context<'_>) -> Option<Vec<Given<(TargetUrl, u16)>>> {
    match (&form.target, &form.targets) {
        (Field::Broken, _) | (_, Field::Broken) => None,
        (Field::Absent, Field::Absent) => {
            cx.error(span, "the route has no target", "add `target: host:port`");
            None
        }
        (Field::Given { .. }, Field::Given { key, .. }) => {
            cx.error(key, "the route has both `target` and `targets`", "move the one target into the list");
            None
        }
        (Field::Given { span, value, .. }, Field::Absent) => {
            Some(vec![Given { span: span.clone(), value: (value.clone(), 1) }])
        }
        (Field::Absent, Field::Given { key, value: list, .. }) => {
            if list.written == 0 {
                cx.error(key, "the list of targets is empty", "add `- target: host:port`");
                return None;
            }
            let read = |item: &Given<TargetForm>| {
                if item.value.target.is_absent() {
                    cx.error(&item.span, "the item has no target", "add `target: host:port`");
                }
                let weight = or_default(&item.value.weight, || Weight(1))?;
                let (target, span) = (item.value.target.get()?, item.value.target.span()?);
                Some(Given { span: span.clone(), value: (target.clone(), weight.0) })
            };
            let good: Vec<_> = list.items.iter().filter_map(read).collect();
            Some(good)
        }
    }
}

/// The one protocol of a route: from its key, or from its targets' schemes.
fn scheme(form: &RouteForm, targets: &[Given<(TargetUrl, u16)>], cx: &mut Context<'_>) -> Option<Scheme> {
    if matches!(form.protocol, Field::Broken) {
        return None;
    }
    let key = form.protocol.get().copied();
    let of = |target: &TargetUrl| target.scheme.or(key).unwrap_or(Scheme::H1);
    let scheme = key.or(targets.first().map(|first| of(&first.value.0))).unwrap_or(Scheme::H1);
    for Given { span, value: (target, _) } in targets {
        if of(target) != scheme {
            let message = format!("this target speaks `{}`, the route `{}`", of(target).as_str(), scheme.as_str());
            cx.error(span, &message, "all targets of a route speak one protocol");
        }
    }
    Some(scheme)
}

fn tls(form: &Field<TlsForm>, scheme: Option<Scheme>, base: &Path, cx: &mut Context<'_>) -> Option<UpstreamTls> {
    let Field::Given { key, value: form, .. } = form else {
        return form.is_absent().then_some(UpstreamTls { verify: true, server_name: None, ca_file: None });
    };
    if scheme.is_some_and(|scheme| scheme != Scheme::Https) {
        cx.error(key, "`tls` is for `https` targets", "write the target as `https://host:port`, or remove `tls`");
    }
    // A broken part already refuses the file; the default only stands in for it.
    Some(UpstreamTls {
        verify: *form.verify.get().unwrap_or(&true),
        server_name: form.server_name.get().cloned(),
        ca_file: form.ca_file.get().map(|FileName(name)| base.join(name)),
    })
}

fn timeouts(form: &Field<TimeoutsForm>) -> Timeouts {
    let default = Timeouts::default();
    let Some(form) = form.get() else { return default };
    let or = |field: &Field<Wait>, default: Duration| field.get().map_or(default, |wait| wait.0);
    Timeouts {
        connect: or(&form.connect, default.connect),
        read: or(&form.read, default.read),
        write: or(&form.write, default.write),
        stream_idle: or(&form.stream_idle, default.stream_idle),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Request,
    Response,
}

fn header_edits(form: &Field<HeadersForm>, direction: Direction, cx: &mut Context<'_>) -> HeaderEdits {
    let Some(form) = form.get() else { return HeaderEdits::default() };
    let mut remove = Vec::new();
    for Given { span, value: name } in form.remove.get().map_or(&[][..], |list| &list.items) {
        refuse_host(&name.0, span, cx);
        remove.push(name.0.clone());
    }
    HeaderEdits {
        remove,
        set: header_pairs(
            &form.set,
            |name, span, value, cx| match direction {
                Direction::Request if name == http::header::HOST => check_host_value(value, span, cx),
                _ => refuse_host(name, span, cx),
            },
            cx,
        ),
        add: header_pairs(&form.add, |name, span, _, cx| refuse_host(name, span, cx), cx),
    }
}

fn header_pairs(
    form: &Field<HeaderMap>,
    check: impl Fn(&http::HeaderName, &Span, &http::HeaderValue, &mut Context<'_>),
    cx: &mut Context<'_>,
) -> Vec<(http::HeaderName, http::HeaderValue)> {
    let mut seen = HashSet::new();
    let mut pairs = Vec::new();
    for (Given { span, value: name }, value) in form.get().map_or(&[][..], |map| &map.0) {
        if !seen.insert(&name.0) {
            cx.error(span, &format!("the header `{}` is given twice", name.0), "header names ignore case; keep one");
        }
        check(&name.0, span, &value.0, cx);
        pairs.push((name.0.clone(), value.0.clone()));
    }
    pairs
}

/// A request has exactly one Host (RFC 9112 §3.2): it can be replaced, nothing else.
fn refuse_host(name: &http::HeaderName, span: &Span, cx: &mut Context<'_>) {
    if name == http::header::HOST {
        cx.error(span, "the header `Host` cannot be edited here", "put it under `request_headers`, in `set`");
    }
}

fn check_host_value(value: &http::HeaderValue, span: &Span, cx: &mut Context<'_>) {
    let authority = value.to_str().ok().and_then(|text| text.parse::<http::uri::Authority>().ok());
    if authority.is_none_or(|authority| authority.as_str().contains('@')) {
        cx.error(
            span,
            "the value of `Host` is not a host",
            "write a name, and a port if there is one: `app.internal:8080`",
        );
    }
}

fn client_auth(form: &Field<ClientCertForm>, base: &Path, cx: &mut Context<'_>) -> Option<ClientAuth> {
    let Field::Given { key, value: form, .. } = form else { return None };
    if form.ca_file.is_absent() {
        cx.error(key, "`client_cert` has no `ca_file`", "add `ca_file: clients.pem`");
    }
    let required = *form.required.get().unwrap_or(&true);
    form.ca_file.get().map(|FileName(name)| ClientAuth { ca_file: base.join(name), required })
}

/// Gives every route an id of its own: its name, or host and path.
fn name(declared: &mut [Declared], cx: &mut Context<'_>) {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut defaults: HashMap<RouteId, usize> = HashMap::new();
    for Declared { route, form, .. } in declared {
        let Field::Given { span, value: name, .. } = &form.name else {
            // A name holds no `/`, a default id does: they never meet. A second route of the same
            // host and path is warned of, and still needs an id.
            let count = defaults.entry(route.id.clone()).or_default();
            *count += 1;
            if *count > 1 {
                route.id = RouteId::new(format!("{}#{count}", route.id));
            }
            continue;
        };
        if let Some(first) = names.insert(name.0.clone(), span.start) {
            let message = format!("the name `{}` is taken", name.0);
            cx.error(
                span,
                &message,
                &format!("the route on line {} has it; names are unique", cx.source.line_of(first)),
            );
        }
        route.id = RouteId::new(name.0.as_str());
    }
}

/// TLS is negotiated before the path is known, so one host has one policy.
fn agree_on_client_certs(declared: &[Declared], cx: &mut Context<'_>) {
    let mut policies: HashMap<&HostPattern, (&ClientAuth, usize)> = HashMap::new();
    for Declared { route, form, .. } in declared {
        let (Some(policy), Some(key)) = (&route.client_auth, form.client_cert.key()) else { continue };
        let (first, at) = *policies.entry(&route.host).or_insert((policy, key.start));
        if first != policy {
            let hint = format!("the route on line {} says otherwise; a host has one policy", cx.source.line_of(at));
            cx.error(key, &format!("`client_cert` of `{}` is declared in two ways", route.host), &hint);
        }
    }
}
