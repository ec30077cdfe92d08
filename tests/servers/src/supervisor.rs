//! A shell that holds a server for us, and outlives us by a moment to leave nothing behind.
//!
//! Statics are never dropped, a killed process drops nothing at all, and a parent-death signal hangs on a thread, which
//! under a test harness is gone long before the process. But a pipe closes whatever becomes of its writer.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Makes a folder and tells its name; then does what it reads, line by line, and answers each with its exit code and
/// the server's process id. Ends with its input.
const SCRIPT: &str = r#"
folder=$(mktemp -d "${TMPDIR:-/tmp}/edd-$1-XXXXXX") && cd "$folder" || exit 1
exec 2>>log
server=
end() {
  [ -n "$server" ] || return 0
  kill -s "$1" "$server" 2>/dev/null
  ( trap 'kill $pause; exit' TERM; sleep 20 & pause=$!; wait $pause && kill -s KILL "$server" ) 2>/dev/null &
  guard=$!
  wait "$server"
  kill "$guard"
  server=
}
echo "$folder"
while read -r line; do
  eval "$line"
  echo "$? $server"
done
end "$2"
eval "$3"
cd / && rm -rf -- "$folder"
"#;

/// How long a server may take to begin to work, or to be gone.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What a failure shows of the log.
const LOG_LINES: usize = 40;
/// How long a program that prepares or asks a server may run.
const RUN_SECONDS: &str = "60";

/// Owns a temporary folder and at most one server, whose output is in `log` there. All commands run in the folder.
#[derive(Debug)]
pub struct Supervisor {
    folder: PathBuf,
    shell: Mutex<Shell>,
}

#[derive(Debug)]
struct Shell {
    child: Child,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

impl Supervisor {
    /// One for a server called `name`, which at the end is sent the signal `last`; then the shell runs `farewell`.
    pub fn new(name: &str, last: &str, farewell: &str) -> Self {
        let mut sh = Command::new("sh");
        sh.args(["-c", SCRIPT, "sh", name, last, farewell]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: what ends all of ours, as Ctrl-C does, must not end the one that cleans up.
        let mut child = sh.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot start sh: {error}"));
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut shell = Shell { child, answers, server: None };
        let folder = PathBuf::from(shell.read_line());
        Self { folder, shell: Mutex::new(shell) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a program to its end: its output is in the log. The log's end if it fails.
    pub fn run(&self, words: &[&str]) -> Result<(), String> {
        let line = format!("timeout {RUN_SECONDS} {} >>log 2>&1 </dev/null", quote(words));
        let code = self.shell().ask(&line);
        if code == 0 { Ok(()) } else { Err(format!("{}: exit code {code}\n{}", words.join(" "), self.log())) }
    }

    /// Starts the server and waits until it is `ready`. The log's end if it ends before that, or takes too long.
    pub fn start(&self, words: &[&str], ready: impl Fn() -> bool) -> Result<(), String> {
        {
            let mut shell = self.shell();
            assert!(shell.server.is_none(), "{} runs already", words[0]);
            shell.ask(&format!("{} >>log 2>&1 </dev/null & server=$!", quote(words)));
        }
        let mut is_ready = false;
        wait_until(|| {
            let is_running = self.is_running();
            is_ready = is_running && ready();
            is_ready || !is_running
        });
        if is_ready {
            return Ok(());
        }
        self.end("KILL");
        Err(format!("{} does not start\n{}", words.join(" "), self.log()))
    }

    /// Sends the server a signal by which it ends, and waits for that. Nothing if it does not run.
    pub fn end(&self, signal: &str) {
        self.shell().ask(&format!("end {signal}"));
    }

    /// Kills the server and its children, none of which gets to react.
    pub fn kill(&self) {
        let mut shell = self.shell();
        let Some(server) = shell.server else { return };
        shell.ask("kill -s STOP $server");
        let children = children(server);
        for child in &children {
            shell.ask(&format!("kill -s KILL {child}"));
        }
        shell.ask("end KILL");
        // They hold its memory and its sockets for as long as they take to die.
        wait_until(|| !children.iter().any(|child| is_alive(*child)));
    }

    pub fn is_running(&self) -> bool {
        self.shell().server.is_some_and(is_alive)
    }

    /// The server's process id, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.shell().server
    }

    /// The end of what the server, and what was run for it, had to say.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn shell(&self) -> std::sync::MutexGuard<'_, Shell> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shell {
    /// Has `line` done: its exit code.
    fn ask(&mut self, line: &str) -> i32 {
        let input = self.child.stdin.as_mut().expect("its input is a pipe, open until it is dropped");
        writeln!(input, "{line}").unwrap_or_else(|error| panic!("the shell that holds a server is gone: {error}"));
        let answer = self.read_line();
        let (code, server) = answer.split_once(' ').unwrap_or((&answer, ""));
        self.server = server.parse().ok();
        code.parse().unwrap_or_else(|_| panic!("the shell that holds a server says `{answer}` to `{line}`"))
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        assert!(matches!(read, Ok(1..)), "the shell that holds a server is gone: {read:?}");
        line.trim_end().to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has been told; there is nobody to tell if it is gone already.
        let _ = self.child.wait();
    }
}

/// `words` as a shell reads them back.
fn quote(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    quoted.join(" ")
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|process| status(*process).is_some_and(|(_, its)| its == parent)).collect()
}

fn is_alive(process: u32) -> bool {
    status(process).is_some_and(|(state, _)| state != 'Z')
}

/// Looks again and again whether `done`, but not for ever.
fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !done() && Instant::now() < deadline {
        #[expect(clippy::disallowed_methods, reason = "a test that waits for a server has nothing else to do")]
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A process's state, as in `ps`, and its parent. None if there is no such process.
fn status(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set for a process that starts a server, to be killed.
    const VICTIM: &str = "EDD_SERVERS_VICTIM";

    fn sleeper() -> Supervisor {
        let supervisor = Supervisor::new("sleeper", "TERM", "");
        supervisor.start(&["sleep", "1000"], || true).expect("a server");
        supervisor
    }

    fn server(supervisor: &Supervisor) -> u32 {
        supervisor.shell().server.expect("a server")
    }

    #[test]
    fn a_server_is_ended_and_started_again() {
        let supervisor = sleeper();
        let first = server(&supervisor);
        for signal in ["TERM", "KILL"] {
            supervisor.end(signal);
            assert!(!supervisor.is_running());
            supervisor.end(signal);
            supervisor.start(&["sleep", "1000"], || true).expect("a server");
        }
        assert!(server(&supervisor) != first && supervisor.is_running());
        supervisor.kill();
        let failure = supervisor.start(&["sh", "-c", "echo \"it's 5 o'clock\" >&2; exit 3"], || false);
        let failure = failure.expect_err("it ends");
        assert!(failure.ends_with("\nit's 5 o'clock"), "{failure}");
    }

    #[test]
    fn a_killed_server_takes_its_children_along() {
        let supervisor = Supervisor::new("parent", "TERM", "");
        let log = supervisor.folder().join("log");
        let started = || fs::read_to_string(&log).is_ok_and(|log| log.ends_with('\n'));
        supervisor.start(&["sh", "-c", "sleep 1000 & echo $!; wait"], started).expect("a server");
        let child: u32 = supervisor.log().parse().expect("a process id");
        assert!(is_alive(child));
        supervisor.kill();
        assert!(!is_alive(child), "{child} lives");
    }

    /// Not a test by itself: what [`a_killed_process_leaves_nothing_behind`] kills.
    #[test]
    fn victim() {
        if std::env::var_os(VICTIM).is_some() {
            let supervisor = sleeper();
            println!("\nserver {} {}", server(&supervisor), supervisor.folder().display());
            std::io::stdin().read_line(&mut String::new()).expect("the end of its life");
        }
    }

    #[test]
    fn a_killed_process_leaves_nothing_behind() {
        let mut victim = Command::new(std::env::current_exe().expect("this program"));
        victim.args(["--exact", "--nocapture", "supervisor::tests::victim"]).env(VICTIM, "1");
        let mut victim = victim.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines().map(|line| line.expect("a line"));
        let line = lines.find(|line| line.starts_with("server ")).expect("a server");
        let (server, folder) = line["server ".len()..].split_once(' ').expect("a server and a folder");
        let (server, folder) = (server.parse::<u32>().expect("a process id"), Path::new(folder));
        let is_there = || is_alive(server) || folder.exists();
        assert!(is_there());
        victim.kill().expect("a kill");
        victim.wait().expect("its end");
        wait_until(|| !is_there());
        assert!(!is_there(), "{line}");
    }
}
