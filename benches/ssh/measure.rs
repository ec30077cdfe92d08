//! Throughput, set-up, processor time and memory by each way.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::way::{Stage, Way};

const MIB: usize = 1 << 20;

/// What was found of one way.
#[derive(Debug)]
pub struct Finding {
    pub way: Way,
    pub rounds: Vec<Round>,
    /// From the start of `ssh` to its end, with a command that does nothing; in ascending order.
    pub logins: Vec<Duration>,
    /// Of all that works on the way, for each connection held; none where nobody does, or nothing was asked.
    pub session_bytes: Option<u64>,
}

/// One run in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub up_mib_per_s: f64,
    pub down_mib_per_s: f64,
    /// Of who works on the way, user and system, both directions together, for each GiB.
    pub cpu_s_per_gib: f64,
}

pub fn all(stage: &mut Stage, options: &Options) -> Vec<Finding> {
    stage.configure(&options.cipher);
    let new = |way| Finding { way, rounds: Vec::new(), logins: Vec::new(), session_bytes: None };
    let mut findings = Way::ALL.map(new).into_iter().collect::<Vec<_>>();
    for way in Way::ALL {
        succeed(&mut stage.ssh(way, "true"));
    }
    // First, since a process that had much to do keeps what it needed for that.
    if options.sessions > 0 {
        for finding in findings.iter_mut().filter(|finding| finding.way != Way::Direct) {
            eprintln!("bench ssh: {} connections {}", options.sessions, finding.way.title());
            finding.session_bytes = Some(hold(stage, finding.way, options.sessions));
        }
    }
    for round in 0..options.rounds {
        eprintln!("bench ssh: round {} of {}", round + 1, options.rounds);
        for turn in 0..findings.len() {
            let at = (round + turn) % findings.len();
            let measured = transfer(stage, findings[at].way, options.transfer_mib);
            findings[at].rounds.push(measured);
        }
    }
    for login in 0..options.logins {
        for turn in 0..findings.len() {
            let at = (login + turn) % findings.len();
            let began = Instant::now();
            succeed(&mut stage.ssh(findings[at].way, "true"));
            findings[at].logins.push(began.elapsed());
        }
    }
    findings.iter_mut().for_each(|finding| finding.logins.sort_unstable());
    findings
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("ssh, of openssh-client");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends zeros there, and has them sent from there.
fn transfer(stage: &Stage, way: Way, mib: usize) -> Round {
    let before = cpu_seconds(&stage.workers(way));
    let up = timed(|| {
        let mut ssh = stage.ssh(way, "cat >/dev/null");
        let mut child = ssh.stdin(Stdio::piped()).spawn().expect("ssh, of openssh-client");
        let mut stdin = child.stdin.take().expect("a pipe");
        let block = vec![0; MIB];
        (0..mib).for_each(|_| stdin.write_all(&block).expect("ssh takes what it is given"));
        drop(stdin);
        assert!(child.wait().expect("our own child").success(), "{ssh:?}");
    });
    let down = timed(|| {
        let mut ssh = stage.ssh(way, &format!("head -c {}M /dev/zero", mib));
        let mut child = ssh.stdout(Stdio::piped()).spawn().expect("ssh, of openssh-client");
        let mut stdout = child.stdout.take().expect("a pipe");
        let (mut block, mut left) = (vec![0; MIB], mib * MIB);
        while left > 0 {
            let most = left.min(MIB);
            stdout.read_exact(&mut block[..most]).expect("all that was asked for");
            left -= most;
        }
        assert!(child.wait().expect("our own child").success(), "{ssh:?}");
    });
    let used = cpu_seconds(&stage.workers(way)) - before;
    let rate = |took: Duration| mib as f64 / took.as_secs_f64();
    Round { up_mib_per_s: rate(up), down_mib_per_s: rate(down), cpu_s_per_gib: used / (2.0 * mib as f64 / 1024.0) }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// What each of so many connections takes of the memory of who is between.
fn hold(stage: &Stage, way: Way, connections: usize) -> u64 {
    let before = proportional_bytes(&stage.workers(way));
    let mut holder = stage.holder(way, connections);
    let mut child =
        holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`cargo xtask setup` installs Python");
    let stdin = child.stdin.take().expect("a pipe");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said).expect("text");
    assert_eq!(said.trim(), "held", "{holder:?}");
    let after = proportional_bytes(&stage.workers(way));
    drop(stdin);
    child.wait().expect("our own child");
    after.saturating_sub(before) / connections as u64
}

/// User and system time of processes so far, and of the children that they have waited for.
fn cpu_seconds(processes: &[u32]) -> f64 {
    /// USER_HZ, which is 100 on every architecture that Linux runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let ticks = processes.iter().filter_map(|process| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before it may hold anything; utime, stime, cutime and cstime are the fields 14 to 17.
        let fields = stat.rsplit_once(") ")?.1.split_whitespace();
        Some(fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>())
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Memory of processes, in which pages that several share are divided among those: OpenSSH has two a connection.
fn proportional_bytes(processes: &[u32]) -> u64 {
    let kibibytes = processes.iter().filter_map(|process| {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    kibibytes.sum::<u64>() * 1024
}
