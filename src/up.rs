//! `edd up`: the whole edge on one machine, in one process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use edd_gateway::gateway::Addresses;
use edd_gateway::route::{Authority, HostName};

use crate::cli::UpArgs;
use crate::exit::{Failure, Outcome};
use crate::settings::Parts;
use crate::{demo, gateway, logging, settings};

/// The routes that a newcomer without a file of their own begins with.
const EXAMPLE_ROUTES: &str = include_str!("../routes.yaml");

pub fn run(mut args: UpArgs) -> Outcome {
    logging::start(args.run.log.as_deref());
    if args.run.gateway.routes_file == Path::new("routes.yaml") && !args.run.gateway.routes_file.exists() {
        args.run.gateway.routes_file = write_example(args.run.gateway.data_dir())?;
    }
    gateway::runtime(args.run.gateway.worker_threads())?.block_on(serve(args))
}

async fn serve(args: UpArgs) -> Outcome {
    let bind = if args.public { settings::PUBLIC } else { settings::LOOPBACK };
    let demo = demo::start().await?;
    let name = Authority::parse(demo::TARGET).map_err(Failure::config)?;
    let (domain, routes) = (args.run.gateway.base_domain.clone(), args.run.gateway.routes_file.clone());
    let parts = Parts { targets: HashMap::from([(name, demo)]), ..Parts::default() };
    gateway::serve(args.run, bind, parts, |addresses| announce(addresses, &domain, &routes)).await
}

fn write_example(data_dir: &Path) -> Result<PathBuf, Failure> {
    let path = data_dir.join("routes.yaml");
    if !path.exists() {
        let failed = |error| Failure::config(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        std::fs::write(&path, EXAMPLE_ROUTES).map_err(failed)?;
    }
    Ok(path)
}

fn announce(addresses: &Addresses, domain: &HostName, routes: &Path) {
    let (http, https) = (addresses.http.port(), addresses.https.port());
    println!("edd {} is up\n", env!("CARGO_PKG_VERSION"));
    println!("  http://{domain}:{http}/       the demo service, in plain HTTP");
    println!("  https://{domain}:{https}/      the same over HTTPS and HTTP/2");
    println!("  http://{}/readyz?verbose   health; also /metrics and /routes\n", addresses.admin);
    println!("  routes      {} (edit it: changes are live at once)", routes.display());
    println!("  local CA    `edd certs trust` makes browsers on this machine accept its certificates");
    println!("  requests    `edd tap` follows them, `edd routes explain URL` tells which route takes one\n");
    println!("Ctrl-C stops it.");
}
