//! `edd healthcheck`: for container runtimes and scripts.

use crate::admin_client;
use crate::cli::HealthcheckArgs;
use crate::exit::{Code, Outcome};

pub fn run(args: &HealthcheckArgs) -> Outcome {
    let (status, body) = admin_client::block_on(admin_client::get(args.admin.address, "/readyz?verbose"))?;
    let ready = status == 200;
    let report: serde_json::Value = serde_json::from_slice(&body)?;
    if args.json {
        println!("{report}");
    } else {
        for check in report["checks"].as_array().into_iter().flatten() {
            let text = |key: &str| check[key].as_str().unwrap_or_default();
            println!("{:<9} {}: {}", text("state"), text("name"), text("detail"));
        }
        println!("{}", if ready { "ready" } else { "not ready" });
    }
    Ok(if ready { Code::Ok } else { Code::Failure })
}
