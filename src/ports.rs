//! `edd ports`: the ports of containers, as the running gateway has them.

use serde_json::Value;

use crate::admin_client::{block_on, get_json};
use crate::cli::PortsCommand;
use crate::exit::{Code, Outcome};
use crate::routes::print_table;

pub fn run(command: PortsCommand) -> Outcome {
    let PortsCommand::List { admin, json } = command;
    let list: Value = block_on(get_json(admin.address, "/ports"))?;
    if json {
        println!("{list}");
    } else {
        print(&list);
    }
    Ok(Code::Ok)
}

fn print(list: &Value) {
    let ports = list["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() {
        println!("no port leads to a container");
        return;
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let rows: Vec<[String; 6]> = ports
        .iter()
        .flat_map(|port| {
            let rules = port["rules"].as_array().into_iter().flatten();
            rules.map(move |rule| {
                let state = match text(&port["error"]) {
                    why if why.is_empty() => text(&port["state"]),
                    why => format!("{}: {why}", text(&port["state"])),
                };
                let target = text(&rule["target_port"]);
                let (protocol, container) = (text(&rule["protocol"]), text(&rule["container"]));
                [text(&port["port"]), protocol, container, target, text(&port["connections"]), state]
            })
        })
        .collect();
    let rows: Vec<[&str; 6]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    print_table(["PORT", "PROTOCOL", "CONTAINER", "TARGET", "OPEN", "STATE"], &rows);
}
