//! `edd files share`, `shares` and `unshare`

use hyper::Method;
use serde_json::{Value, json};

use super::args::{ShareArgs, SharesArgs, UnshareArgs};
use super::client::Server;
use crate::exit::Failure;
use crate::routes::print_table;
use crate::secret;

pub async fn make(args: &ShareArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let password = secret::resolve("EDD_SHARE_PASSWORD", None, args.password_file.clone())?;
    let wanted = json!({
        "namespace": args.place.namespace,
        "path": args.place.path,
        "password": password.as_ref().map(|password| password.reveal()),
        "expires_in": args.expires_in.map(|time| time.as_secs()),
        "max_downloads": args.downloads,
    });
    let made = server.ask(Method::POST, "/storage/shares", Some(&wanted)).await?;
    match args.server.json {
        true => println!("{made}"),
        // Shown this once: the share itself keeps only its hash.
        false => println!("{}", made["url"].as_str().unwrap_or_default()),
    }
    Ok(())
}

pub async fn list(args: &SharesArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let found: Vec<Value> = server.pages("/storage/shares?").await?;
    if args.server.json {
        println!("{}", json!({ "shares": found }));
        return Ok(());
    }
    let rows: Vec<[String; 5]> = found.iter().map(row).collect();
    let rows: Vec<[&str; 5]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["ID", "TO", "PASSWORD", "UNTIL", "DOWNLOADS LEFT"], &rows);
    Ok(())
}

fn row(share: &Value) -> [String; 5] {
    let text = |key: &str, absent: &str| match &share[key] {
        Value::Null => absent.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let to = format!("{}/{}", text("namespace", ""), text("path", ""));
    let password = if share["has_password"] == true { "yes" } else { "no" };
    [text("id", ""), to, password.to_owned(), text("expires_at", "taken back"), text("downloads_left", "any")]
}

pub async fn revoke(args: &UnshareArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let answer = server.ask(Method::DELETE, &format!("/storage/shares/{}", args.id), None).await?;
    if args.server.json {
        println!("{answer}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_without_limits_says_so() {
        let share = json!({ "id": 3, "namespace": "docs", "path": null, "has_password": true, "expires_at": null });
        assert_eq!(row(&share), ["3", "docs/", "yes", "taken back", "any"]);
    }
}
