//! Who may import whom, read from the sources. ARCHITECTURE.md says why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The crates of the project, each with those that it may depend on.
const CRATES: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("events", &["edd-proto"]),
    ("gateway", &["edd-proto", "edd-events"]),
    ("control", &["edd-proto", "edd-events"]),
    (".", &["edd-proto", "edd-events", "edd-gateway", "edd-control"]),
    ("xtask", &[]),
];

/// Modules of the gateway that may import the ones named and no others: the pure ones, and what the
/// two halves of it share.
const MAY_IMPORT: [(&str, &[&str]); 9] = [
    ("path", &[]),
    ("reason", &[]),
    ("route", &["path"]),
    ("table", &["path", "route"]),
    ("sources", &["path", "route"]),
    ("router", &["live", "table"]),
    ("certs", &["route"]),
    ("drain", &[]),
    ("metrics", &["reason", "route", "route_metrics"]),
];

/// Modules of the gateway that must not import, or name, what follows.
const MUST_NOT: [(&str, &[&str]); 11] = [
    // Rules know no engine, no socket and no TLS.
    ("decision", &["proxy", "listeners", "sources", "admin", "pingora", "tokio", "rustls"]),
    ("policy", &["proxy", "listeners", "sources", "admin", "pingora", "tokio", "rustls"]),
    ("table", &["pingora", "tokio", "rustls", "http"]),
    ("path", &["pingora", "tokio", "rustls", "http"]),
    // What serves requests knows nothing of where routes come from.
    ("live", &["containers", "ingress", "sources", "publish", "proxy", "listeners", "admin", "edd_events", "sqlx"]),
    ("containers", &["sources", "publish", "proxy", "listeners", "admin", "pingora", "axum"]),
    // Logins are decided by what is published, wherever that came from.
    ("ssh", &["sources", "publish", "ingress", "admin", "gateway", "pingora", "axum", "edd_control", "sqlx"]),
    // The two halves meet in the router.
    ("proxy", &["sources", "publish", "listeners", "admin", "gateway"]),
    // The lane needs no other engine.
    ("lane", &["sources", "publish", "listeners", "admin", "gateway", "pingora", "rustls"]),
    ("publish", &["sources", "proxy", "listeners"]),
    ("admin", &["proxy", "listeners", "sources"]),
];

/// The only places of the gateway that name these crates.
const ONLY_IN: [(&str, &[&str]); 6] = [
    ("pingora", &["proxy", "live", "upgrade_socket", "gateway"]),
    ("axum", &["admin"]),
    ("granit_parser", &["sources"]),
    ("notify", &["sources", "certs"]),
    // The table has fingerprints of keys, which the library reads and writes.
    ("russh", &["ssh", "table"]),
    ("tokio_rustls", &["proxy", "listeners", "certs", "ports"]),
];

/// The services of `control`. None imports another, and what is not theirs, their kernel, imports none of them.
const SERVICES: [&str; 3] = ["auth", "sfs", "compute"];

/// The layers of a service: a module imports those of its own line and of the lines above it. A module that is not
/// named is of the first line; `mod.rs` puts them together.
const LAYERS: [&[&str]; 4] =
    [&["model"], &["store"], &["service", "reconciler", "keeper", "check"], &["api", "dav", "page", "owner"]];

/// The files and folders of `control` that name HTTP's types, wherever they are.
const HTTP: [&str; 11] =
    ["api", "dav", "page", "caller", "connector", "error", "extract", "request", "origin", "cors", "service_key"];

/// The only places of `control` that name these crates.
const ONLY_IN_CONTROL: [(&str, &[&str]); 2] = [("object_store", &["storage"]), ("dav_server", &["dav"])];

/// What the implementations of the bus import. They carry messages for whoever has some.
const BUS: [&str; 5] = ["clock", "database", "fail_point", "message", "outbox"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// Every Rust file below `dir`, in order.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    let files = paths.into_iter().flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// The first names of all paths in `code`: `crate::a::B` counts as `crate::a`, `use crate::{a, b}` as both.
fn names(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("::") {
            let first = line[..at].rsplit(|c| !is_word(c)).next().unwrap_or_default();
            if line[..at - first.len()].ends_with("::") {
                continue;
            }
            let rest = &line[at + 2..];
            match (first, rest.strip_prefix('{')) {
                ("crate", Some(group)) => {
                    let members = group.split([',', '}']).map(|member| member.trim().split(|c| !is_word(c)).next());
                    found
                        .extend(members.flatten().filter(|name| !name.is_empty()).map(|name| format!("crate::{name}")));
                }
                ("crate", None) => {
                    found.insert(format!("crate::{}", rest.split(|c| !is_word(c)).next().unwrap_or_default()));
                }
                _ => {
                    found.insert(first.to_owned());
                }
            }
        }
    }
    found
}

/// The module of the gateway that a file belongs to.
fn module(gateway: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(gateway).expect("a file of the gateway");
    let first = inside.components().next().expect("a relative path").as_os_str().to_str().expect("a plain name");
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a file of a crate is in, and its own name, which `mod.rs` has not: `["auth", "service", "login"]`.
fn modules(src: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(src).expect("a file of the crate").with_extension("");
    let parts = inside.iter().map(|part| part.to_str().expect("a plain name").to_owned());
    parts.filter(|part| !["mod", "lib"].contains(&part.as_str())).collect()
}

/// Whether a file holds nothing but tests.
fn is_test(modules: &[String]) -> bool {
    modules.iter().any(|module| ["tests", "scratch", "conformance"].contains(&module.as_str()))
}

/// Every path in `code`, a file's at `modules`, that begins with `crate` or `super`, from the crate's root on.
fn inner_paths(modules: &[String], code: &str) -> Vec<Vec<String>> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for first in ["crate::", "super::"] {
        for (at, _) in text.match_indices(first) {
            let before = text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                expand(modules.to_vec(), &text[at..], &mut found);
            }
        }
    }
    found
}

/// Reads the path, or the group of paths, that `text` begins with, below `base`.
fn expand(mut base: Vec<String>, text: &str, found: &mut Vec<Vec<String>>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    expand(base.clone(), &group[begin..at], found);
                    begin = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    match &text[..end] {
        "" | "self" => {}
        "crate" => base.clear(),
        "super" => drop(base.pop()),
        name => base.push(name.to_owned()),
    }
    match text[end..].strip_prefix("::") {
        Some(rest) => expand(base, rest, found),
        None => found.push(base),
    }
}

/// The line of [`LAYERS`] that a service's module is on.
fn layer(module: &str) -> usize {
    LAYERS.iter().position(|line| line.contains(&module)).unwrap_or(0)
}

/// What is wrong with the imports of a file of `control`.
fn wrong_in_control(modules: &[String], code: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let service = modules.first().filter(|module| SERVICES.contains(&module.as_str()));
    for path in inner_paths(modules, code) {
        let Some(other) = path.first().filter(|module| SERVICES.contains(&module.as_str())) else { continue };
        // The crate's root alone knows them all.
        if !modules.is_empty() && service != Some(other) {
            wrong.push(format!("imports the service `{}`", path.join("::")));
        } else if let (Some(from), Some(to)) = (modules.get(1), path.get(1))
            && layer(to) > layer(from)
        {
            wrong.push(format!("is below `{}`, which it imports", path.join("::")));
        }
    }
    let is_in = |homes: &[&str]| modules.iter().any(|module| homes.contains(&module.as_str()));
    let is_service_s_own = service.is_some() && modules.len() == 1;
    let found = names(code);
    for http in ["http", "axum"].into_iter().filter(|name| found.contains(*name)) {
        if !is_in(&HTTP) && !is_service_s_own {
            wrong.push(format!("names `{http}`"));
        }
    }
    for (name, homes) in ONLY_IN_CONTROL.iter().filter(|(name, _)| found.contains(*name)) {
        if !is_in(homes) {
            wrong.push(format!("names `{name}`"));
        }
    }
    let has_tables = is_in(&["store"]) || modules.first().is_some_and(|module| module == "revocation");
    if has_sql(code) && !has_tables {
        wrong.push("has SQL".to_owned());
    }
    wrong
}

fn has_sql(code: &str) -> bool {
    let code = code.to_lowercase();
    code.contains("sqlx::query") || code.lines().any(|line| line.starts_with("use sqlx") && line.contains("query"))
}

/// Whether `name`, as [`names`] tells it, is the module or crate `what`, or one of the family `what_…`.
fn is(name: &str, what: &str) -> bool {
    let name = name.strip_prefix("crate::").unwrap_or(name);
    name == what || name.strip_prefix(what).is_some_and(|rest| rest.starts_with('_'))
}

#[test]
fn crates_depend_on_those_below_them() {
    for (dir, allowed) in CRATES {
        let manifest = read(&root().join(dir).join("Cargo.toml"));
        let section =
            manifest.split("\n[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
        for line in section.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(!name.starts_with("edd-") || allowed.contains(&name), "{dir}/Cargo.toml must not depend on {name}");
        }
    }
    let xtask = read(&root().join("xtask/Cargo.toml"));
    assert!(!xtask.contains("dependencies]"), "xtask has no dependencies: it builds in a second on a bare machine");
}

#[test]
fn modules_of_the_gateway_import_what_they_may() {
    let gateway = root().join("gateway/src");
    let files = sources(&gateway);
    let known: BTreeSet<String> = files.iter().map(|file| module(&gateway, file)).collect();
    for (name, _) in MAY_IMPORT.iter().chain(&MUST_NOT) {
        assert!(known.contains(*name), "a rule is about `{name}`, which is gone");
    }
    let mut wrong = Vec::new();
    // What a test needs to look at something from outside is not the architecture.
    for file in files.iter().filter(|file| !is_test(&modules(&gateway, file))) {
        let module = module(&gateway, file);
        let found = names(&read(file));
        let shown = file.strip_prefix(root()).expect("a file of the project").display();
        let mut complain = |name: &str| wrong.push(format!("{shown} (module `{module}`) names `{name}`"));
        for name in &found {
            let inside = name.strip_prefix("crate::").filter(|inside| **inside != *module && known.contains(*inside));
            let may = MAY_IMPORT.iter().find(|(who, _)| *who == module);
            if inside.is_some_and(|inside| may.is_some_and(|(_, allowed)| !allowed.contains(&inside))) {
                complain(name);
            }
            let must_not = MUST_NOT.iter().find(|(who, _)| *who == module).map_or(&[][..], |(_, forbidden)| forbidden);
            if must_not.iter().any(|forbidden| is(name, forbidden)) {
                complain(name);
            }
            let elsewhere = |(what, homes): &&(&str, &[&str])| is(name, what) && !homes.contains(&module.as_str());
            if !name.starts_with("crate::") && ONLY_IN.iter().any(|rule| elsewhere(&rule)) {
                complain(name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_read_from_every_form_of_path() {
    let code = "use crate::{live, table::RouteTable};\n// crate::comment\nlet x = crate::path::normalize(a::b::c());";
    assert_eq!(
        names(code).into_iter().collect::<Vec<_>>(),
        ["a", "crate::live", "crate::path", "crate::table", "table"]
    );
}

#[test]
fn services_know_the_kernel_and_not_one_another() {
    let control = root().join("control/src");
    for name in SERVICES {
        assert!(control.join(name).is_dir(), "a rule is about the service `{name}`, which is gone");
    }
    let mut wrong = Vec::new();
    for file in sources(&control) {
        let modules = modules(&control, &file);
        if !is_test(&modules) {
            let shown = file.strip_prefix(root()).expect("a file of the project").display().to_string();
            wrong.extend(wrong_in_control(&modules, &read(&file)).into_iter().map(|what| format!("{shown} {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_bus_carries_messages_and_knows_nobody_who_has_some() {
    let events = root().join("events/src");
    let mut wrong = Vec::new();
    for file in sources(&events) {
        let (modules, code) = (modules(&events, &file), read(&file));
        let shown = file.strip_prefix(root()).expect("a file of the project").display();
        let is_bus = modules.first().is_some_and(|module| module == "bus") && !is_test(&modules);
        for path in inner_paths(&modules, &code).into_iter().filter(|_| is_bus) {
            if path.first().is_some_and(|module| module != "bus" && !BUS.contains(&module.as_str())) {
                wrong.push(format!("{shown} imports `{}`", path.join("::")));
            }
        }
        let is_jetstream = modules.get(1).is_some_and(|module| module == "jetstream");
        if names(&code).contains("async_nats") && !is_jetstream {
            wrong.push(format!("{shown} names `async_nats`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tables belong to the services, and to the kernel. The gateway's are in its stores, and the command has none.
#[test]
fn sql_is_in_stores() {
    for dir in ["src", "gateway/src"].map(|dir| root().join(dir)) {
        for file in sources(&dir) {
            let modules = modules(&dir, &file);
            let is_store = dir.ends_with("gateway/src") && modules.last().is_some_and(|module| module == "store");
            let may = is_store || is_test(&modules);
            assert!(may || !has_sql(&read(&file)), "{} has SQL", file.display());
        }
    }
}

#[test]
fn imports_are_seen_however_they_are_written() {
    let at = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    for (module, code, wrong) in [
        ("sfs::api", "use crate::auth::service::Service;", true),
        ("caller", "fn f() { crate::sfs::router() }", true),
        ("auth::store", "use crate::{\n    error,\n    auth::{model, service::Service},\n};", true),
        ("auth::store::users", "use super::super::service::Service;", true),
        ("auth::service::login", "pub(in crate::auth) use super::super::api::client;", true),
        ("auth::scope", "use crate::auth::store;", true),
        ("auth::service::login", "use http::HeaderMap;", true),
        ("auth::service::login", "use sqlx::{Row, query};", true),
        ("sfs::service", "use object_store::ObjectStore;", true),
        ("sfs::storage::read", "use object_store::ObjectStore;", false),
        ("sfs::dav::spot", "use crate::sfs::service::Place;", false),
        ("sfs::service", "use super::dav::Spot;", true),
        ("sfs::service", "sqlx::query_scalar(\"SELECT 1\")", true),
        (
            "auth::service::login",
            "use super::Service;\nuse crate::auth::store::users;\nuse crate::error::Error;",
            false,
        ),
        ("auth::api::sign_in", "use axum::Json;\nuse crate::auth::service::Service;\nuse super::who;", false),
        ("auth", "use axum::Router;\nuse crate::auth::service::Service;", false),
        ("auth::store::users", "// crate::auth::service\nuse sqlx::query;\nuse super::Connection;", false),
        ("revocation::mark", "sqlx::query(\"SELECT 1\")", false),
    ] {
        let found = wrong_in_control(&at(module), code);
        assert_eq!(!found.is_empty(), wrong, "{module}: {code}: {found:?}");
    }
}
