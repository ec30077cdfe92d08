//! `edd certs`: the certificates as they lie on disk, and trust in the local CA.

use edd_gateway::certs::{CertInfo, CertSource, CertStore, trust};
use edd_gateway::route::HostName;
use serde_json::json;

use crate::cli::{CertsArgs, CertsCommand};
use crate::exit::{Code, Failure, Outcome};
use crate::routes::print_table;
use crate::settings;

pub fn run(command: CertsCommand) -> Outcome {
    match command {
        CertsCommand::List { certs, json } => list(&open(&certs)?.list(), json),
        CertsCommand::Show { name, certs, json } => show(&name, &certs, json),
        CertsCommand::Trust { certs, remove, json } => trust_local_ca(&certs, remove, json),
    }
}

/// Reads the certificates. A local CA that does not exist yet is not made: looking changes nothing.
fn open(args: &CertsArgs) -> Result<CertStore, Failure> {
    let localhost = HostName::parse("localhost").map_err(Failure::config)?;
    let has_ca = args.data_dir.join("ca").exists();
    CertStore::open(settings::certs_config(args, has_ca.then_some(localhost))).map_err(Failure::config)
}

fn source(info: &CertInfo) -> String {
    match &info.source {
        CertSource::File(path) => path.display().to_string(),
        CertSource::LocalRoot(path) => format!("local CA, {}", path.display()),
        CertSource::LocalLeaf => "signed by the local CA".to_owned(),
    }
}

fn state(info: &CertInfo) -> String {
    serde_json::to_value(info.state).ok().and_then(|state| state.as_str().map(str::to_owned)).unwrap_or_default()
}

fn day(time: Option<time::OffsetDateTime>) -> String {
    time.map(|time| time.date().to_string()).unwrap_or_default()
}

fn list(list: &[CertInfo], as_json: bool) -> Outcome {
    if as_json {
        println!("{}", json!({ "certificates": list }));
        return Ok(Code::Ok);
    }
    let cells: Vec<[String; 4]> =
        list.iter().map(|info| [info.names.join(", "), state(info), day(info.not_after), source(info)]).collect();
    let rows: Vec<[&str; 4]> = cells.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["NAMES", "STATE", "EXPIRES", "FROM"], &rows);
    for info in list {
        if let Some(message) = &info.message {
            eprintln!("{}: {message}", source(info));
        }
    }
    Ok(Code::Ok)
}

fn show(name: &str, args: &CertsArgs, as_json: bool) -> Outcome {
    let wanted = HostName::parse(name).map_err(|error| Failure::new(Code::Failure, error))?;
    let covers = |pattern: &str| match pattern.strip_prefix("*.") {
        Some(suffix) => wanted.as_str().split_once('.').is_some_and(|(_, parent)| parent == suffix),
        None => pattern == wanted.as_str(),
    };
    let found: Vec<CertInfo> =
        open(args)?.list().into_iter().filter(|info| info.names.iter().any(|pattern| covers(pattern))).collect();
    if as_json {
        println!("{}", json!({ "name": wanted, "certificates": found }));
    } else if found.is_empty() {
        println!(
            "no certificate file covers {wanted}; names under localhost and the base domain get one of the local CA"
        );
    }
    for info in found.iter().filter(|_| !as_json) {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        println!("names       {}", info.names.join(", "));
        println!("from        {}", source(info));
        println!("issuer      {}", or_none(&info.issuer));
        println!("valid       {} to {}", day(info.not_before), day(info.not_after));
        println!("key         {}", or_none(&info.key_type));
        println!("sha256      {}", or_none(&info.sha256));
        println!("state       {} {}", state(info), or_none(&info.message));
    }
    Ok(if found.is_empty() { Code::Failure } else { Code::Ok })
}

fn trust_local_ca(args: &CertsArgs, remove: bool, as_json: bool) -> Outcome {
    let (dir, store) = (args.data_dir.join("ca"), trust::SystemStore::detect());
    let act = if remove { trust::remove } else { trust::install };
    let report = act(&dir, store.as_ref()).map_err(|error| Failure::new(Code::Failure, error))?;
    let done = !matches!(report.system, trust::SystemOutcome::NeedsRights { .. } | trust::SystemOutcome::Unknown);
    if as_json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(if done { Code::Ok } else { Code::Failure });
    }
    println!("{}\n  sha256 {}", report.root.display(), report.sha256);
    match &report.system {
        trust::SystemOutcome::Installed(path) => println!("now trusted by this system: {}", path.display()),
        trust::SystemOutcome::Removed(path) => println!("no longer trusted by this system: {} is gone", path.display()),
        trust::SystemOutcome::NotInstalled => println!("it was not trusted by this system"),
        trust::SystemOutcome::NeedsRights { commands } => {
            println!("this takes more rights; run:");
            commands.iter().for_each(|command| println!("  {command}"));
        }
        trust::SystemOutcome::Unknown => println!("this system's store of authorities is not known to edd"),
    }
    for step in &report.manual {
        println!("{}:", step.target);
        step.commands.iter().for_each(|command| println!("  {command}"));
    }
    Ok(if done { Code::Ok } else { Code::Failure })
}
