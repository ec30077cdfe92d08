//! A running server: pinned to one core, in a process group of its own, measured through /proc.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cores::pinned;
use super::exchange;
use super::guardian::Guardian;
use super::usage;
use crate::failure::{Failure, line, not_started};

/// Open files for the idle connections, towards client and upstream, with room to spare. More would make haproxy and
/// nginx reserve memory for them.
const OPEN_FILES: u32 = 16_384;
const START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// How a server is started.
pub struct Plan {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub variables: Vec<(&'static str, String)>,
    pub listen: Listen,
    /// Throw stderr away: it is an access log that is written to be measured.
    pub discard_stderr: bool,
}

/// How its ports become known.
#[derive(Clone, Copy)]
pub enum Listen {
    Chosen {
        http: u16,
        https: u16,
    },
    /// It says so itself, in one JSON line on stdout.
    Announced,
}

pub struct Server<'a> {
    child: Child,
    guardian: &'a Guardian,
    core: u32,
    pub http: u16,
    pub https: u16,
}

impl<'a> Server<'a> {
    /// Starts `plan` on `core` and waits until it answers. Output goes to files beside `label` in the guardian's folder.
    pub fn start(plan: &Plan, label: &str, core: u32, guardian: &'a Guardian) -> Result<Self, Failure> {
        let log = guardian.folder().join(format!("{label}.log"));
        let announcement = guardian.folder().join(format!("{label}.out"));
        let create =
            |file: &Path| File::create(file).map_err(|error| Failure::step(format!("{}: {error}", file.display())));
        let mut command = pinned(core, "prlimit");
        command.arg(format!("--nofile={OPEN_FILES}:{OPEN_FILES}")).arg(&plan.program).args(&plan.args);
        command.envs(plan.variables.iter().map(|(name, value)| (name, value))).process_group(0);
        command.stdin(Stdio::null()).stdout(create(&announcement)?);
        command.stderr(if plan.discard_stderr { Stdio::null() } else { create(&log)?.into() });
        let child = command.spawn().map_err(|error| not_started(&command, &error))?;
        let mut server = Self { child, guardian, core, http: 0, https: 0 };
        guardian.watch(server.group())?;
        server.wait(plan.listen, &announcement).map_err(|reason| {
            let log = fs::read_to_string(&log).unwrap_or_default();
            Failure::step(format!("{label} does not serve: {reason}\ncommand: {}\n{}", line(&command), log.trim_end()))
        })?;
        Ok(server)
    }

    fn wait(&mut self, listen: Listen, announcement: &Path) -> Result<(), String> {
        let deadline = Instant::now() + START;
        loop {
            let addresses = match listen {
                Listen::Chosen { http, https } => Some((http, https)),
                Listen::Announced => announced(&fs::read_to_string(announcement).unwrap_or_default()),
            };
            let reason = match addresses.map(|(http, https)| (http, https, exchange::get(http, "/1k"))) {
                Some((http, https, Ok(_))) => {
                    (self.http, self.https) = (http, https);
                    return Ok(());
                }
                Some((http, _, Err(error))) => format!("port {http}: {error}"),
                None => "it did not say where it listens".to_owned(),
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("{reason}, after {} s", START.as_secs()));
            }
            pause();
        }
    }

    pub fn cpu_seconds(&self) -> f64 {
        usage::cpu_seconds(self.group())
    }

    /// What its core has done so far, for it and for anybody else.
    pub fn core_seconds(&self) -> f64 {
        usage::core_seconds(self.core)
    }

    pub fn resident_bytes(&self) -> u64 {
        usage::resident_bytes(self.group())
    }

    fn group(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let ended = self.guardian.end(self.group()).is_ok() && self.child.wait().is_ok();
        if !ended {
            eprintln!("xtask: process group {} may still run", self.group());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this program has no runtime whose workers it could stop")]
fn pause() {
    thread::sleep(POLL);
}

/// The ports in a line like `{"http":"127.0.0.1:8080","https":"127.0.0.1:8443"}`, once it is whole.
fn announced(output: &str) -> Option<(u16, u16)> {
    let line = output.split_inclusive('\n').find(|line| line.starts_with('{') && line.ends_with('\n'))?;
    let port = |name: &str| {
        let value = line.split_once(&format!("\"{name}\""))?.1.trim_start().strip_prefix(':')?.trim_start();
        value.strip_prefix('"')?.split_once('"')?.0.rsplit_once(':')?.1.parse().ok()
    };
    Some((port("http")?, port("https")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_counts_when_its_line_is_whole() {
        let line = "{\"admin\": \"127.0.0.1:1\", \"https\":\"[::1]:8443\", \"http\": \"127.0.0.1:8080\"}\n";
        assert_eq!(announced(line), Some((8080, 8443)));
        assert_eq!(announced(line.trim_end()), None);
        assert_eq!(announced("{\"http\": \"127.0.0.1:80\"}\n"), None);
        assert_eq!(announced("starting\n"), None);
    }
}
