//! `edd ports`: the ports of containers, as the running gateway has them; and who decides about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_events::publisher::Publisher;
use edd_gateway::gateway::Gateway;
use edd_gateway::ingress::{Decider, PortPolicy, PortRange};
use edd_gateway::ports::ListenerSet;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin_client::{block_on, get_json};
use crate::cli::PortsCommand;
use crate::exit::{Code, Outcome};
use crate::routes::print_table;

/// The ports of a gateway that serves.
#[derive(Clone, Debug)]
pub struct OpenPorts {
    containers: ListenerSet,
    own: BTreeSet<u16>,
}

impl OpenPorts {
    pub fn of(gateway: &Gateway) -> Self {
        Self { containers: gateway.ports().clone(), own: gateway.addresses.ports() }
    }
}

/// Decides who gets which port, from when the gateway serves until `stop`.
pub async fn decide(
    (database, publisher, clock): (Database, Publisher, Arc<dyn Clock>),
    range: PortRange,
    mut open: watch::Receiver<Option<OpenPorts>>,
    stop: CancellationToken,
) {
    let found = tokio::select! {
        () = stop.cancelled() => return,
        found = open.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
    };
    // Without a gateway there are no ports to give.
    let Some(OpenPorts { containers, own }) = found else { return };
    let policy = PortPolicy { range, reserved: own };
    Decider::new(database, publisher, clock, policy, Arc::new(containers)).run(stop).await;
}

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
