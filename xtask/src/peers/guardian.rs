//! A process that outlives us by a moment, to leave nothing behind.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::failure::{Failure, not_started};

/// Keeps a list of process groups until we are gone, by whatever way (its input then ends), and kills them all. A group
/// that was ended before is off the list, as its number may soon be another's.
const SCRIPT: &str = "
groups=' '
while read -r verb group; do
  case $verb in
    watch) groups=\"$groups-$group \" ;;
    end) kill -s KILL -- \"-$group\"; groups=\"${groups%% -$group *} ${groups#* -$group }\" ;;
  esac
done
for group in $groups; do kill -s KILL -- \"$group\"; done
rm -rf -- \"$1\"
";

/// Owns a temporary folder and the servers that work in it. Drop ends them all; so does Ctrl-C, a panic or SIGKILL,
/// since the guardian sits in a process group of its own.
pub struct Guardian {
    child: Child,
    folder: PathBuf,
}

impl Guardian {
    pub fn new() -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("edd-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .map_err(|error| Failure::step(format!("cannot create {}: {error}", folder.display())))?;
        let mut sh = Command::new("sh");
        sh.args(["-c", SCRIPT, "guardian"]).arg(&folder).stdin(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let child = sh.spawn().map_err(|error| not_started(&sh, &error))?;
        Ok(Self { child, folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has the process group killed at the latest when we are gone.
    pub fn watch(&self, group: u32) -> Result<(), Failure> {
        self.tell("watch", group)
    }

    /// Kills a process group that was watched.
    pub fn end(&self, group: u32) -> Result<(), Failure> {
        self.tell("end", group)
    }

    fn tell(&self, verb: &str, group: u32) -> Result<(), Failure> {
        match self.child.stdin.as_ref().map(|mut input| writeln!(input, "{verb} {group}")) {
            Some(Ok(())) => Ok(()),
            _ => Err(Failure::step("the process that cleans up is gone")),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("xtask: cleaning up {}: {error}", self.folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("20").process_group(0).spawn().unwrap()
    }

    #[test]
    fn groups_end_when_told_and_when_the_guardian_goes() {
        let guardian = Guardian::new().unwrap();
        let folder = guardian.folder().to_owned();
        let (mut first, mut second) = (sleeper(), sleeper());
        guardian.watch(first.id()).unwrap();
        guardian.watch(second.id()).unwrap();
        guardian.end(first.id()).unwrap();
        assert_eq!(first.wait().unwrap().signal(), Some(9));
        assert!(second.try_wait().unwrap().is_none(), "the other group was killed as well");
        assert!(folder.exists());
        drop(guardian);
        assert_eq!(second.wait().unwrap().signal(), Some(9));
        assert!(!folder.exists());
    }
}
