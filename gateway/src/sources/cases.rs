//! Routes files and what is said about them, in `cases/*.txt`: a title behind `===`, the file, `==>`,
//! and the exact diagnostics, or the routes.
//!
//! `EDD_UPDATE_CASES=1 cargo test -p edd-gateway cases` writes down what is said now; review the diff.

use std::fmt::Write;
use std::path::Path;

use super::diff::diff;
use super::file::parse;
use crate::route::{Action, Protocol, Route, Source};

#[test]
fn says_what_the_cases_expect() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sources/cases");
    let mut wrong = String::new();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).expect("the cases are beside this file") {
        let path = entry.expect("the directory can be listed").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a case is text");
        let mut now = String::new();
        for case in text.split("=== ").skip(1) {
            let (title, rest) = case.split_once('\n').expect("a file follows the title");
            let (file, expected) = rest.split_once("==>\n").unwrap_or((rest, ""));
            let said = check(file);
            write!(now, "=== {title}\n{file}==>\n{said}\n").expect("strings take everything");
            if said.trim() != expected.trim() {
                write!(wrong, "\n{}: {title}\n{said}", path.display()).expect("strings take everything");
            }
            count += 1;
        }
        if std::env::var_os("EDD_UPDATE_CASES").is_some() {
            std::fs::write(&path, now).expect("a case can be written");
        }
    }
    assert!(count > 50, "only {count} cases were found");
    assert!(wrong.is_empty(), "{wrong}");
}

/// What is said about a file: its errors, or its warnings and routes.
fn check(file: &str) -> String {
    let mut said = String::new();
    match parse(file, "routes.yaml") {
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason: {file}");
            assert!(errors.iter().all(|error| error.hint.is_some()), "no hint: {errors:?}");
            let rendered: Vec<_> = errors.iter().map(ToString::to_string).collect();
            writeln!(said, "{}", rendered.join("\n\n")).expect("strings take everything");
        }
        Ok(parsed) => {
            for warning in parsed.warnings {
                writeln!(said, "{warning}\n").expect("strings take everything");
            }
            for route in parsed.routes {
                let nothing = Action::Proxy { targets: Vec::new(), protocol: Protocol::H1 };
                let bare = Route::new(route.host.clone(), route.path.clone(), nothing, Source::File);
                // A later route of the same host and path is none to `diff`, so each is alone.
                for change in diff(&[bare], &[route]) {
                    writeln!(said, "{change}").expect("strings take everything");
                }
            }
        }
    }
    said
}
