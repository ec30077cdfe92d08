//! What was last known of the containers, in a file of this machine: for a start while the database is away.
//!
//! One JSON value a line; the last one counts the others, so that half a file is not taken for a whole one.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edd_events::clock::Micros;
use edd_proto::{ContainerId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::containers::layer::Knowledge;
use crate::containers::{Change, Containers, KeyChange, KeyRecord, Origin, Record};
use crate::table::ports::{PortProtocol, PortRule};

/// Grows when older releases cannot read the file any more.
const FORMAT: u32 = 2;
/// Between the first change and the file that has it. A file that takes long to write is written more seldom.
const DEBOUNCE: Duration = Duration::from_secs(2);
const WRITING_SHARE: u32 = 20;
/// Containers taken into the table at once.
const BATCH: usize = 4096;

/// The file.
#[derive(Clone, Debug)]
pub struct LastKnown {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Header { format: u32, as_of: Micros, is_all_keys: bool },
    Container(Record),
    Gone { id: ContainerId, version: i64 },
    Key(KeyRecord),
    GoneKey { id: i64, version: i64 },
    Port { container: ContainerId, port: u16, target_port: u16, protocol: String },
    DeletedUser(UserId),
    End { lines: u64 },
}

impl LastKnown {
    /// In `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("containers.jsonl") }
    }

    /// Publishes what the file has. False: there is no file.
    ///
    /// # Errors
    /// It cannot be read, or is not whole; nothing was published then.
    pub async fn restore(&self, containers: &Containers) -> io::Result<bool> {
        let (path, containers) = (self.path.clone(), containers.clone());
        let read = tokio::task::spawn_blocking(move || match read(&path) {
            Ok(lines) => {
                publish(lines, &containers);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        });
        read.await?
    }

    /// Writes what is known, in the place of what was.
    ///
    /// # Errors
    /// The disk fails; the file stays as it was.
    pub async fn save(&self, containers: &Containers) -> io::Result<()> {
        // Nothing is better than a file that says there is nothing.
        let Some(as_of) = containers.freshness().as_of() else { return Ok(()) };
        let (path, knowledge) = (self.path.clone(), containers.knowledge());
        tokio::task::spawn_blocking(move || write(&path, as_of, &knowledge)).await?
    }

    /// Keeps the file as what is known changes, until told to stop, and once more then.
    pub async fn keep(self, containers: Containers, stop: CancellationToken) {
        let mut changed: watch::Receiver<u64> = containers.router().changed();
        let mut pause = DEBOUNCE;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = changed.changed() => {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
            changed.mark_unchanged();
            let began = Instant::now();
            if let Err(error) = self.save(&containers).await {
                let path = self.path.display();
                tracing::error!(%path, %error, "what is known of the containers was not saved for the next start");
            }
            pause = DEBOUNCE.max(began.elapsed() * WRITING_SHARE);
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[allow(clippy::disallowed_methods, reason = "called where blocking is allowed")]
fn read(path: &Path) -> io::Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for line in BufReader::new(std::fs::File::open(path)?).lines() {
        lines.push(serde_json::from_str(&line?)?);
    }
    match (lines.first(), lines.last()) {
        (Some(Line::Header { format: FORMAT, .. }), Some(Line::End { lines: count }))
            if *count == lines.len() as u64 - 1 =>
        {
            Ok(lines)
        }
        (Some(Line::Header { format: FORMAT, .. }), _) => Err(invalid("the file ends too early")),
        _ => Err(invalid("the file is of another release")),
    }
}

fn publish(lines: Vec<Line>, containers: &Containers) {
    let (mut as_of, mut changes, mut keys, mut rules, mut users) = (0, Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut is_all_keys = false;
    for line in lines {
        match line {
            Line::Header { as_of: at, is_all_keys: all, .. } => (as_of, is_all_keys) = (at, all),
            Line::Container(record) => changes.push(Change::Is(record)),
            Line::Gone { id, version } => changes.push(Change::Gone { id, version }),
            Line::Key(record) => keys.push(KeyChange::Is(record)),
            Line::GoneKey { id, version } => keys.push(KeyChange::Gone { id, version }),
            Line::Port { container, port, target_port, protocol } => {
                let protocol = PortProtocol::ALL.into_iter().find(|known| known.as_str() == protocol);
                rules.extend(
                    protocol
                        .map(|protocol| (port, container, Some(PortRule { container, port, target_port, protocol }))),
                );
            }
            Line::DeletedUser(user) => users.push(user),
            Line::End { .. } => {}
        }
    }
    containers.delete_users(users);
    containers.set_ports(rules);
    for keys in keys.chunks(BATCH) {
        containers.ssh_keys().apply(keys.iter().copied(), Origin::Database);
    }
    if is_all_keys {
        containers.ssh_keys().set_complete();
    }
    while !changes.is_empty() {
        let rest = changes.split_off(changes.len().min(BATCH));
        containers.apply(std::mem::replace(&mut changes, rest), Origin::Database);
    }
    containers.set_complete();
    containers.freshness().known_as_of(as_of);
}

#[allow(clippy::disallowed_methods, reason = "called where blocking is allowed")]
fn write(path: &Path, as_of: Micros, knowledge: &Knowledge) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut out = BufWriter::new(std::fs::File::create(&fresh)?);
    let records = knowledge.containers.iter().filter_map(|(_, live)| Record::of(live)).map(Line::Container);
    let gone = knowledge.gone.iter().map(|(id, version)| Line::Gone { id: *id, version: *version });
    let ports = knowledge.rules.iter().map(|rule| Line::Port {
        container: rule.container,
        port: rule.port,
        target_port: rule.target_port,
        protocol: rule.protocol.as_str().to_owned(),
    });
    let users = knowledge.deleted_users.iter().map(|user| Line::DeletedUser(*user));
    let keys = knowledge.keys.iter().map(|change| match change {
        KeyChange::Is(record) => Line::Key(*record),
        KeyChange::Gone { id, version } => Line::GoneKey { id: *id, version: *version },
    });
    let header = std::iter::once(Line::Header { format: FORMAT, as_of, is_all_keys: knowledge.is_all_keys });
    let mut lines = 0;
    for line in header.chain(users).chain(ports).chain(keys).chain(gone).chain(records) {
        put(&mut out, &line)?;
        lines += 1;
    }
    put(&mut out, &Line::End { lines })?;
    // On disk before it has the name: after a loss of power there is the old file or the new one.
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(&fresh, path)
}

fn put(out: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
