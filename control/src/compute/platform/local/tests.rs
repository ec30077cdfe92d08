//! The suite of all platforms on every tier.

mod image;
mod isolation;

use std::collections::BTreeMap;
use std::path::Path;

use super::home::Run;
use super::*;
use crate::compute::platform::conformance::{self, Machine};

/// Not a test of its own: edd's program as far as the platform is concerned, which the tests of this crate do not have.
#[test]
fn stands_in_for_the_command() {
    if std::env::var_os(role::VARIABLE).is_some() {
        role::play().expect("a part played to its end");
    }
}

/// This test program, told to run the above.
fn program() -> Program {
    let name = "compute::platform::local::tests::stands_in_for_the_command";
    Program {
        path: std::env::current_exe().expect("a path"),
        arguments: [name, "--exact", "--nocapture"].map(str::to_owned).to_vec(),
    }
}

/// A data directory of its own, on one tier.
struct Here {
    folder: tempfile::TempDir,
    tier: Tier,
}

impl Here {
    /// None, and words about it, where the tier cannot be had.
    fn on(tier: Tier) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let tried = tier.try_out(&folder.path().join("trial"));
        home::remove_tree(&folder.path().join("trial")).expect("removed");
        match tried {
            Ok(()) => Some(Self { folder, tier }),
            Err(error) => {
                println!("NOT RUN: {} cannot be had: {error}", tier.name());
                None
            }
        }
    }

    fn config(&self) -> Config {
        let ready_timeout = Duration::from_secs(10);
        let sshd = Some(conformance::sshd());
        Config { tier: Some(self.tier), ready_timeout, sshd, ..Config::new(self.folder.path(), program()) }
    }

    async fn local(&self) -> Local {
        Local::start(self.config()).await.expect("a platform")
    }
}

impl Drop for Here {
    /// A test that failed leaves containers, which would outlive it, and what they have of the machine.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let config = self.config();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let local = Local::start(config).await?;
                local.shutdown(Duration::ZERO).await;
                Ok::<_, PlatformError>(())
            })
        });
        if !matches!(ended.join(), Ok(Ok(()))) {
            eprintln!("containers in {} may be left", self.folder.path().display());
        }
    }
}

#[async_trait]
impl Machine for Here {
    async fn open(&self) -> Arc<dyn Platform> {
        Arc::new(self.local().await)
    }

    fn leftovers(&self, id: ContainerId) -> Vec<String> {
        let home = self.folder.path().canonicalize().expect("a folder").join("containers").join(id.as_str());
        let home = home.to_str().expect("text").to_owned();
        let mut left: Vec<String> = processes(&home, id).into_iter().map(|pid| format!("process {pid}")).collect();
        let named = |dir: &Path| dir.file_name().is_some_and(|name| name.to_string_lossy().contains(id.as_str()));
        let links = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|entry| entry.path());
        left.extend(links.filter(|path| named(path)).map(|path| path.display().to_string()));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        left.extend(mounts.lines().filter(|mount| mount.contains(id.as_str())).map(str::to_owned));
        let controllers = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let installations = controllers.chain([Path::new("/sys/fs/cgroup").to_owned()]).filter_map(|dir| {
            let entries = std::fs::read_dir(dir).ok()?;
            Some(entries.flatten().map(|entry| entry.path().join(id.as_str())).filter(|dir| dir.exists()))
        });
        left.extend(installations.flatten().map(|dir| dir.display().to_string()));
        left
    }

    fn has_users(&self) -> bool {
        self.tier == Tier::Root
    }

    fn kill_main(&self) -> &'static str {
        "for p in /proc/[0-9]*; do \
           tr '\\0' '\\n' 2>/dev/null < $p/environ | grep -qx EDD_CONTAINER_ROLE=page \
           && tr '\\0' '\\n' 2>/dev/null < $p/environ | grep -qx EDD_CONTAINER_ID=$EDD_CONTAINER_ID \
           && kill -9 ${p#/proc/}; \
         done; true"
    }
}

/// Processes that were started for a container, by their environment.
fn processes(home: &str, id: ContainerId) -> Vec<String> {
    let marks = [format!(":{home}"), format!("EDD_CONTAINER_ID={id}")];
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_it = all.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            let variable = String::from_utf8_lossy(variable);
            marks.iter().any(|mark| variable.ends_with(mark.as_str()))
        })
    });
    of_it.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

mod root {
    use super::{Here, Tier, conformance};
    conformance::suite!(Here::on(Tier::Root));
}

mod user {
    use super::{Here, Tier, conformance};
    conformance::suite!(Here::on(Tier::User));
}

mod plain {
    use super::{Here, Tier, conformance};
    conformance::suite!(Here::on(Tier::Plain));
}
