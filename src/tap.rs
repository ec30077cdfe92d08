//! `edd tap`: requests as they are answered.

use std::io::Write;

use http_body_util::BodyExt;

use crate::admin_client;
use crate::cli::TapArgs;
use crate::exit::{Code, Failure, Outcome};

/// Longest line taken from the gateway, in bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

pub fn run(args: &TapArgs) -> Outcome {
    admin_client::block_on(follow(args))
}

async fn follow(args: &TapArgs) -> Outcome {
    let mut query = Vec::new();
    for (name, value) in [("host", &args.host), ("status", &args.status)] {
        if let Some(value) = value {
            query.push(format!("{name}={}", admin_client::encode(value)));
        }
    }
    let response = admin_client::open(args.admin.address, &format!("/tap?{}", query.join("&"))).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    if status != 200 {
        let problem = body.collect().await?.to_bytes();
        return Err(admin_client::refusal(status, &problem));
    }
    if !args.json {
        eprintln!("following requests; Ctrl-C ends it");
    }
    let mut pending = Vec::new();
    // A gateway that ends breaks the stream off.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if let Err(error) = print(&line, args.json) {
                // `edd tap | head` is no failure.
                return if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(Code::Ok) } else { Err(error.into()) };
            }
        }
        if pending.len() > MAX_LINE_BYTES {
            return Err(Failure::unavailable("the gateway sent an endless line"));
        }
    }
    Err(Failure::unavailable("the gateway went away"))
}

fn print(line: &[u8], json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        out.write_all(line)?;
        return out.flush();
    }
    let record: serde_json::Value = serde_json::from_slice(line)?;
    if let Some(missed) = record["missed"].as_u64() {
        return writeln!(out, "... {missed} requests came too fast to be shown");
    }
    let text = |key: &str| record[key].as_str().unwrap_or("-").to_owned();
    let reason = record["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
    writeln!(
        out,
        "{} {:>3} {:>8.1}ms {:<7} {}{} -> {} [{}]{reason}",
        text("ts").get(11..23).unwrap_or_default(),
        record["status"].as_u64().map_or_else(|| "-".to_owned(), |status| status.to_string()),
        record["duration_ms"].as_f64().unwrap_or_default(),
        text("method"),
        text("host"),
        text("path"),
        text("upstream"),
        text("route"),
    )?;
    out.flush()
}
