//! `edd events replay`: a service's copy of the users, built anew.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use edd_control::auth::owner::Users;
use edd_events::clock::SystemClock;
use edd_events::projection::{Owner, Progress, Projection, Replay, ReplayError, Replayed, Source};
use edd_events::user_cache::UserCache;
use edd_proto::Stream;
use serde_json::json;

use crate::cli::{OwnerArgs, ReplaySource, ServiceArgs};
use crate::databases::ServiceName;
use crate::exit::{Code, Failure, Outcome};
use crate::plane::{Plane, PlaneArgs};

/// Rebuilds `projection`, and says what came of it.
pub async fn run(
    projection: &str,
    from: Option<ReplaySource>,
    service: &ServiceArgs,
    plane: &PlaneArgs,
    owner: &OwnerArgs,
    as_json: bool,
) -> Outcome {
    let users = Arc::new(UserCache);
    let known = users.shape().name;
    if service.service == ServiceName::Auth {
        return Err(Failure::config(
            "auth has no copies of others' state\nhint: name a service that has: --service sfs",
        ));
    }
    if projection != known {
        let message = format!("{} has no projection named `{projection}`; it has `{known}`", service.service);
        return Err(Failure::config(message));
    }
    let database = service.databases.only(service.service)?.attach(service.service).await?;
    let plane = plane.plane(plane.bus(&service.databases.data_dir).await?)?;
    let owner = find_owner(service, owner, &plane).await?;
    let source = from.map(|from| match from {
        ReplaySource::Stream => Source::Stream,
        ReplaySource::Owner => Source::Owner,
    });
    let replay = Replay::new(users, Stream::AUTH, owner, (database, plane.bus, Arc::new(SystemClock)));
    let is_watched = std::io::stderr().is_terminal();
    let replayed = replay.run(source, &mut |progress| show(progress, is_watched)).await;
    if is_watched {
        eprintln!();
    }
    let replayed = replayed.map_err(explain)?;
    tell(service.service, known, replayed, as_json);
    Ok(Code::Ok)
}

/// The users' owner: over HTTP if it is known where, else its database if that is here.
async fn find_owner(
    service: &ServiceArgs,
    owner: &OwnerArgs,
    plane: &Plane,
) -> Result<Option<Arc<dyn Owner>>, Failure> {
    if let Some(remote) = owner.auth(plane)?.users {
        return Ok(Some(remote));
    }
    let found = service.databases.all()?.into_iter().find(|(name, _)| *name == ServiceName::Auth);
    let Some((name, location)) = found else { return Ok(None) };
    Ok(Some(Arc::new(Users::of(location.attach(name).await?))))
}

fn show(progress: Progress, is_watched: bool) {
    if is_watched {
        let total = progress.total.map_or_else(String::new, |total| format!(" of {total}"));
        eprint!("\r{}{total} read", progress.read);
        // Only a picture of how far it is.
        let _ = std::io::stderr().flush();
    }
}

fn explain(error: ReplayError) -> Failure {
    match error {
        ReplayError::NoOwner { .. } => Failure::config(format!(
            "{error}\nhint: set AUTH_SERVICE_URL and SERVICE_API_KEY, or run it where the auth service's database is"
        )),
        ReplayError::Bus(_) | ReplayError::Owner(_) | ReplayError::Database(_) => Failure::unavailable(error),
        error => Failure::new(Code::Failure, error),
    }
}

fn tell(service: ServiceName, projection: &str, replayed: Replayed, as_json: bool) {
    let Replayed { source, read, skipped, carried } = replayed;
    let source = match source {
        Source::Stream => "stream",
        Source::Owner => "owner",
    };
    if as_json {
        let service = service.to_string();
        let told = json!({ "service": service, "projection": projection, "source": source, "read": read,
            "skipped": skipped, "carried": carried });
        println!("{told}");
        return;
    }
    println!("{projection} of {service} was rebuilt from its {source}: {read} read");
    if skipped > 0 {
        println!("{skipped} events were skipped: no row can be made of them (`edd dlq list --service {service}`)");
    }
    if carried > 0 {
        println!("{carried} rows were written meanwhile and kept");
    }
}
