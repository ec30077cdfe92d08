//! Warnings: what is legal, and surely a mistake. Nothing here is a guess.

use std::collections::HashMap;

use super::build::Declared;
use super::decode::Context;
use super::written::HeadersForm;
use crate::route::{Action, HostPattern, PathPrefix, Protocol};

pub(super) fn lint(declared: &[Declared], cx: &mut Context<'_>) {
    let mut first: HashMap<(&HostPattern, &PathPrefix), &Declared> = HashMap::with_capacity(declared.len());
    for route in declared {
        let key = (&route.route.host, &route.route.path);
        match first.get(&key) {
            Some(winner) => duplicate(route, winner, cx),
            None => {
                first.insert(key, route);
            }
        }
        match &route.route.action {
            Action::Proxy { .. } => proxy(route, cx),
            Action::Redirect(_) => redirect(route, cx),
        }
        for headers in [&route.form.request_headers, &route.form.response_headers] {
            if let Some(headers) = headers.get() {
                removed_and_set(headers, cx);
            }
        }
    }
}

fn duplicate(route: &Declared, winner: &Declared, cx: &mut Context<'_>) {
    let line = cx.source.line_of(winner.span.start);
    let message = format!("this route can never match: `{}{}` is taken", route.route.host, route.route.path);
    cx.warn(&route.span, &message, &format!("the route on line {line} takes its requests; remove one of them"));
}

fn proxy(Declared { route, form, .. }: &Declared, cx: &mut Context<'_>) {
    let Action::Proxy { targets, protocol } = &route.action else { return };
    if let (Some(key), true) = (form.targets.key(), targets.iter().all(|target| target.weight == 0)) {
        cx.warn(key, "no target of this route takes requests", "give at least one a `weight` above 0");
    }
    if let (Some(key), true) = (form.strip_prefix.key(), route.strip_prefix && route.path.trimmed().is_empty()) {
        cx.warn(key, "`strip_prefix` has no effect on the path `/`", "give the route a longer `path`, or remove it");
    }
    if let (Some(key), Protocol::H2c) = (form.websocket.key(), protocol) {
        cx.warn(key, "`websocket` has no effect: `h2c` targets take no upgrades", "remove it");
    }
    if let (Some(tls), Protocol::Https(policy)) = (form.tls.get(), protocol)
        && let (Some(key), false) = (tls.ca_file.key(), policy.verify)
    {
        cx.warn(key, "`ca_file` has no effect beside `verify: false`", "remove one of them");
    }
}

/// Keys that only matter on the way to a target.
fn redirect(Declared { form, .. }: &Declared, cx: &mut Context<'_>) {
    let keys = [
        ("strip_prefix", form.strip_prefix.key()),
        ("timeouts", form.timeouts.key()),
        ("request_headers", form.request_headers.key()),
        ("body_limit", form.body_limit.key()),
        ("websocket", form.websocket.key()),
    ];
    for (name, key) in keys {
        if let Some(key) = key {
            cx.warn(key, &format!("`{name}` has no effect on a redirect"), "remove it");
        }
    }
}

fn removed_and_set(headers: &HeadersForm, cx: &mut Context<'_>) {
    let (Some(removed), Some(set)) = (headers.remove.get(), headers.set.get()) else { return };
    for name in &removed.items {
        if set.0.iter().any(|(given, _)| given.value == name.value) {
            let message = format!("removing `{}` has no effect: it is set as well", name.value.0);
            cx.warn(&name.span, &message, "`set` replaces what is there; keep one of the two");
        }
    }
}
