//! `edd sessions`: who is in over SSH, as the running gateway has it, and an end to that.

use std::net::SocketAddr;

use serde_json::Value;

use crate::admin_client::{block_on, delete, encode, get_json};
use crate::cli::{ChosenSessions, SessionsCommand};
use crate::exit::{Code, Failure, Outcome};
use crate::routes::print_table;

pub fn run(command: SessionsCommand) -> Outcome {
    match command {
        SessionsCommand::List { chosen, admin, json } => {
            let sessions = block_on(list(admin.address, &chosen))?;
            if json {
                println!("{}", serde_json::json!({ "sessions": sessions }));
            } else {
                print(&sessions);
            }
        }
        SessionsCommand::Kill { id, chosen, admin, json } => {
            let query = match &id {
                Some(id) => format!("id={}", encode(id)),
                None => query(&chosen),
            };
            let killed = block_on(delete(admin.address, &format!("/ssh/sessions?{query}")))?;
            match (json, killed["killed"].as_u64()) {
                (true, _) => println!("{killed}"),
                (false, Some(1)) => println!("ended 1 session"),
                (false, count) => println!("ended {} sessions", count.unwrap_or_default()),
            }
        }
    }
    Ok(Code::Ok)
}

/// All pages.
async fn list(admin: SocketAddr, chosen: &ChosenSessions) -> Result<Vec<Value>, Failure> {
    let mut sessions: Vec<Value> = Vec::new();
    loop {
        let after = sessions.last().and_then(|last| last["id"].as_str()).map(|id| format!("&after={}", encode(id)));
        let path = format!("/ssh/sessions?{}{}", query(chosen), after.unwrap_or_default());
        let page: Value = get_json(admin, &path).await?;
        let listed = page["sessions"].as_array().cloned().unwrap_or_default();
        let is_last = listed.is_empty() || page["more"] != true;
        sessions.extend(listed);
        if is_last {
            return Ok(sessions);
        }
    }
}

fn query(chosen: &ChosenSessions) -> String {
    let pairs = [("container", &chosen.container), ("user", &chosen.user)];
    let given = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))));
    given.collect::<Vec<_>>().join("&")
}

fn print(sessions: &[Value]) {
    if sessions.is_empty() {
        println!("nobody is logged in over SSH");
        return;
    }
    let rows: Vec<[String; 8]> = sessions.iter().map(row).collect();
    let rows: Vec<[&str; 8]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["ID", "LOGIN", "USER", "FROM", "SINCE", "CHANNELS", "IN", "OUT"], &rows);
}

fn row(session: &Value) -> [String; 8] {
    let text = |key: &str| match &session[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let jumps: Vec<&str> = session["jumps"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let login = if jumps.is_empty() { text("login") } else { format!("{} to {}", text("login"), jumps.join(", ")) };
    let [id, user, peer, since] = ["id", "user", "peer", "since"].map(text);
    let [channels, bytes_in, bytes_out] = ["channels", "bytes_in", "bytes_out"].map(text);
    [id, login, user, peer, since, channels, bytes_in, bytes_out]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_says_where_it_leads() {
        let session = serde_json::json!({
            "id": "018d2f4e-3800-7001-8000-000000000002", "user": "V1StGXR8_Z5jdHi6B-myT", "container": null,
            "jumps": ["abcdefghij"], "login": "jump", "peer": "192.0.2.7", "since": "2024-01-22T11:46:40.000Z",
            "channels": 1, "bytes_in": 2, "bytes_out": 3,
        });
        let row = row(&session);
        let row: Vec<&str> = row.iter().map(String::as_str).collect();
        assert_eq!(row[1..4], ["jump to abcdefghij", "V1StGXR8_Z5jdHi6B-myT", "192.0.2.7"]);
        assert_eq!(row[5..], ["1", "2", "3"]);
    }

    #[test]
    fn what_is_chosen_is_asked_for() {
        let chosen = |container: Option<&str>, user: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            query(&ChosenSessions { container: text(container), user: text(user) })
        };
        assert_eq!(chosen(None, None), "");
        assert_eq!(chosen(Some("abcdefghij"), None), "container=abcdefghij");
        assert_eq!(chosen(None, Some("a b")), "user=a%20b");
    }
}
