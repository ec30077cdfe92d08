//! `edd routes`: look at routes without sending a request.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use edd_gateway::admin::split_url;
use edd_gateway::publish;
use edd_gateway::route::Route;
use edd_gateway::sources::{self, Diagnostic, LoadError, Parsed};
use edd_gateway::table::RouteTable;
use serde_json::{Value, json};

use crate::admin_client;
use crate::cli::RoutesCommand;
use crate::exit::{Code, Failure, Outcome};

pub fn run(command: RoutesCommand) -> Outcome {
    match command {
        RoutesCommand::Check { file, json } => check(&file, json),
        RoutesCommand::Explain { url, routes, admin, json } => {
            let explanation = match routes {
                Some(file) => explain_file(&url, &file)?,
                None => {
                    let path = format!("/routes/explain?url={}", admin_client::encode(&url));
                    admin_client::block_on(admin_client::get_json(admin.address, &path))?
                }
            };
            print_explanation(&explanation, json);
            Ok(if explanation["winner"].is_null() { Code::Failure } else { Code::Ok })
        }
        RoutesCommand::List { routes, admin, json } => {
            let list = match routes {
                Some(file) => list_file(&file)?,
                None => admin_client::block_on(admin_client::get_json(admin.address, "/routes"))?,
            };
            print_list(&list, json);
            Ok(Code::Ok)
        }
        RoutesCommand::Add { host, path, target, strip_prefix, admin, json } => {
            let form = json!({ "host": host, "path": path, "target": target, "strip_prefix": strip_prefix });
            let added = admin_client::block_on(admin_client::post(admin.address, "/routes", &form))?;
            match json {
                true => println!("{added}"),
                false => println!("{} {} -> {}", text(&added, "host"), text(&added, "path"), text(&added, "action")),
            }
            Ok(Code::Ok)
        }
        RoutesCommand::Remove { host, path, admin, json } => {
            let which = format!("/routes?host={}&path={}", admin_client::encode(&host), admin_client::encode(&path));
            let removed = admin_client::block_on(admin_client::delete(admin.address, &which))?;
            match json {
                true => println!("{removed}"),
                false => println!("removed {host} {path}"),
            }
            Ok(Code::Ok)
        }
        RoutesCommand::Diff { old, new, json } => diff(&old, &new, json),
        RoutesCommand::Schema => {
            println!("{:#}", sources::schema::schema());
            Ok(Code::Ok)
        }
    }
}

fn load(file: &Path) -> Result<Parsed, Failure> {
    sources::load(file).map_err(|error| match error {
        LoadError::Invalid(errors) => Failure::config(format!("{} is not valid\n{}", file.display(), render(&errors))),
        error @ LoadError::Io { .. } => Failure::config(error),
    })
}

/// Diagnostics for stderr, with colour where it is a terminal.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = std::io::stderr().is_terminal() && !no_color;
    diagnostics.iter().map(|diagnostic| diagnostic.render(color)).collect::<Vec<_>>().join("\n")
}

fn check(file: &Path, as_json: bool) -> Outcome {
    let file = if file == Path::new("-") { Path::new("/dev/stdin") } else { file };
    let (errors, warnings, routes) = match sources::load(file) {
        Ok(parsed) => (Vec::new(), parsed.warnings, parsed.routes),
        Err(LoadError::Invalid(errors)) => (errors, Vec::new(), Vec::new()),
        Err(error @ LoadError::Io { .. }) => return Err(Failure::config(error)),
    };
    // What the text alone cannot tell: the files that it names.
    let unusable: Vec<String> = match publish::rehearse(&routes) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    let (valid, count) = (errors.is_empty() && unusable.is_empty(), routes.len());
    if as_json {
        let report =
            json!({ "valid": valid, "routes": count, "errors": errors, "unusable": unusable, "warnings": warnings });
        println!("{report}");
    } else {
        unusable.iter().for_each(|error| eprintln!("error: {error}"));
        errors.iter().chain(&warnings).for_each(|found| eprintln!("{}", render(std::slice::from_ref(found))));
        match valid {
            true => println!("{}: ok, {count} routes, {} warnings", file.display(), warnings.len()),
            false => eprintln!(
                "{}: {} errors; a running gateway would keep its last good routes",
                file.display(),
                errors.len() + unusable.len()
            ),
        }
    }
    Ok(if valid { Code::Ok } else { Code::Config })
}

fn explain_file(url: &str, file: &Path) -> Result<Value, Failure> {
    let (host, path) = split_url(url).map_err(|error| Failure::new(Code::Failure, error))?;
    let table: RouteTable<Route> = RouteTable::build(load(file)?.routes.into_iter().map(Arc::new));
    Ok(serde_json::to_value(table.explain(&host, &path))?)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn print_explanation(explanation: &Value, as_json: bool) {
    if as_json {
        println!("{explanation}");
        return;
    }
    println!("{}{}", text(explanation, "host"), text(explanation, "path"));
    let winner = &explanation["winner"];
    if winner.is_null() {
        println!("  no route takes it: the answer is 404 (no_route)");
    } else {
        println!("  taken by  {}  ({} {})", text(winner, "route"), text(winner, "host"), text(winner, "path"));
        println!("  goes to   {}", text(winner, "action"));
        println!("  seen as   {}", text(winner, "upstream_path"));
    }
    for loser in explanation["losers"].as_array().into_iter().flatten() {
        let why = match text(loser, "why") {
            "duplicate" => "same host and path, declared later",
            "shorter_prefix" => "a longer prefix matches",
            "host_less_specific" => "a more specific host was chosen",
            _ => "its prefix does not contain the path",
        };
        println!("  not       {}  ({} {}): {why}", text(loser, "route"), text(loser, "host"), text(loser, "path"));
    }
    if let Some(others @ 1..) = explanation["other_hosts"].as_u64() {
        println!("  and {others} routes for other hosts");
    }
}

fn list_file(file: &Path) -> Result<Value, Failure> {
    let routes: Vec<Value> = load(file)?
        .routes
        .iter()
        .map(|route| {
            json!({
                "route": route.id,
                "host": route.host,
                "path": route.path,
                "action": route.describe_action(),
                "source": route.source,
            })
        })
        .collect();
    Ok(json!({ "routes": routes }))
}

fn print_list(list: &Value, as_json: bool) {
    if as_json {
        println!("{list}");
        return;
    }
    let rows: Vec<[&str; 4]> = list["routes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|route| [text(route, "host"), text(route, "path"), text(route, "action"), text(route, "route")])
        .collect();
    print_table(["HOST", "PATH", "GOES TO", "ROUTE"], &rows);
}

/// Prints columns as wide as their widest cell.
pub fn print_table<const N: usize>(header: [&str; N], rows: &[[&str; N]]) {
    let width =
        |column: usize| rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    for row in std::iter::once(&header).chain(rows) {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
}

fn diff(old: &Path, new: &Path, as_json: bool) -> Outcome {
    let changes = sources::diff(&load(old)?.routes, &load(new)?.routes);
    if as_json {
        println!("{}", json!({ "changes": changes }));
    } else {
        changes.iter().for_each(|change| println!("{change}"));
    }
    Ok(if changes.is_empty() { Code::Ok } else { Code::Failure })
}
