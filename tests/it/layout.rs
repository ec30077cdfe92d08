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
const MUST_NOT: [(&str, &[&str]); 7] = [
    // Rules know no engine, no socket and no TLS.
    ("decision", &["proxy", "listeners", "sources", "admin", "pingora", "tokio", "rustls"]),
    ("policy", &["proxy", "listeners", "sources", "admin", "pingora", "tokio", "rustls"]),
    ("table", &["pingora", "tokio", "rustls", "http"]),
    ("path", &["pingora", "tokio", "rustls", "http"]),
    // The two halves meet in the router.
    ("proxy", &["sources", "publish", "listeners", "admin", "gateway"]),
    ("publish", &["sources", "proxy", "listeners"]),
    ("admin", &["proxy", "listeners", "sources"]),
];

/// The only places of the gateway that name these crates.
const ONLY_IN: [(&str, &[&str]); 5] = [
    ("pingora", &["proxy", "live", "upgrade_socket", "gateway"]),
    ("axum", &["admin"]),
    ("granit_parser", &["sources"]),
    ("notify", &["sources", "certs"]),
    ("tokio_rustls", &["proxy", "listeners", "certs"]),
];

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
    let modules: BTreeSet<String> = files.iter().map(|file| module(&gateway, file)).collect();
    for (name, _) in MAY_IMPORT.iter().chain(&MUST_NOT) {
        assert!(modules.contains(*name), "a rule is about `{name}`, which is gone");
    }
    let mut wrong = Vec::new();
    for file in &files {
        let module = module(&gateway, file);
        let found = names(&read(file));
        let shown = file.strip_prefix(root()).expect("a file of the project").display();
        let mut complain = |name: &str| wrong.push(format!("{shown} (module `{module}`) names `{name}`"));
        for name in &found {
            let inside = name.strip_prefix("crate::").filter(|inside| **inside != *module && modules.contains(*inside));
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
