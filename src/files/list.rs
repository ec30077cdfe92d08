//! `edd files ls`

use serde::{Deserialize, Serialize};

use super::args::LsArgs;
use super::client::Server;
use super::place::Anywhere;
use super::trouble::Trouble;
use crate::admin_client::encode;
use crate::exit::Failure;
use crate::routes::print_table;

/// A file or a folder, as the share lists it.
#[derive(Debug, Deserialize, Serialize)]
pub struct Entry {
    pub name: String,
    pub path: String,
    pub size: u64,
    #[serde(default)]
    pub is_folder: bool,
    pub sha256: Option<String>,
    pub media_type: Option<String>,
    pub created_at: String,
    pub modified_at: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Namespace {
    name: String,
    count: u64,
    used_bytes: u64,
    visibility_name: String,
}

pub async fn list(args: &LsArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let Some(place) = &args.place else { return namespaces(&server, args.server.json).await };
    let entries =
        if args.recursive { entries_below(&server, place).await? } else { entries_in(&server, place).await? };
    if args.server.json {
        println!("{}", serde_json::json!({ "files": entries }));
        return Ok(());
    }
    let rows: Vec<[String; 3]> = entries.iter().map(|entry| row(entry, args.recursive)).collect();
    let rows: Vec<[&str; 3]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["NAME", "SIZE", "MODIFIED"], &rows);
    Ok(())
}

async fn namespaces(server: &Server, as_json: bool) -> Result<(), Failure> {
    let found: Vec<Namespace> = server.pages("/storage/namespaces?").await?;
    if as_json {
        println!("{}", serde_json::json!({ "namespaces": found }));
        return Ok(());
    }
    let numbers: Vec<[String; 2]> = found.iter().map(|it| [it.count.to_string(), it.used_bytes.to_string()]).collect();
    let rows = found.iter().zip(&numbers);
    let rows: Vec<[&str; 4]> = rows
        .map(|(it, [count, used])| [&it.name, count, used, &it.visibility_name])
        .map(|row| row.map(String::as_str))
        .collect();
    print_table(["NAMESPACE", "FILES", "BYTES", "VISIBILITY"], &rows);
    Ok(())
}

fn row(entry: &Entry, is_deep: bool) -> [String; 3] {
    let name = if is_deep { &entry.path } else { &entry.name };
    match entry.is_folder {
        true => [format!("{name}/"), String::new(), entry.modified_at.clone()],
        false => [name.clone(), entry.size.to_string(), entry.modified_at.clone()],
    }
}

/// What is in a folder or a namespace.
async fn entries_in(server: &Server, place: &Anywhere) -> Result<Vec<Entry>, Trouble> {
    server.pages(&query(place)).await
}

/// The files of it and of all folders below.
pub async fn entries_below(server: &Server, place: &Anywhere) -> Result<Vec<Entry>, Trouble> {
    server.pages(&format!("{}&recursive=true", query(place))).await
}

fn query(place: &Anywhere) -> String {
    format!("/storage/files?namespace={}&folder={}", encode(&place.namespace), encode(&place.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_seen_to_be_one() {
        let entry = |is_folder| Entry {
            name: "b".to_owned(),
            path: "a/b".to_owned(),
            size: 7,
            is_folder,
            sha256: None,
            media_type: None,
            created_at: String::new(),
            modified_at: "2026-01-31T12:00:00Z".to_owned(),
        };
        assert_eq!(row(&entry(true), false)[..2], ["b/", ""]);
        assert_eq!(row(&entry(false), true)[..2], ["a/b", "7"]);
    }
}
