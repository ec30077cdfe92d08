//! What a process group has used, from /proc.

use std::fs;

/// Clock ticks of /proc per second: USER_HZ, which is 100 on every architecture that Linux runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process group so far, children that have ended included.
pub fn cpu_seconds(group: u32) -> f64 {
    let ticks: u64 = members(group).map(|process| process.ticks).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// Resident memory of a process group. Pages that its processes share count once for each.
pub fn resident_bytes(group: u32) -> u64 {
    let status = |process: Process| fs::read_to_string(format!("/proc/{}/status", process.id)).ok();
    members(group).filter_map(status).filter_map(|status| resident_of(&status)).sum()
}

struct Process {
    id: u32,
    group: u32,
    ticks: u64,
}

/// The processes of `group` that exist just now; one that ends while we look is left out.
fn members(group: u32) -> impl Iterator<Item = Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let stats = folders.filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
    stats.filter_map(|stat| parse_stat(&stat)).filter(move |process| process.group == group)
}

/// Reads `/proc/<pid>/stat`, see proc_pid_stat(5). The name in it may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let (id, rest) = stat.split_once(" (")?;
    let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split_whitespace().collect();
    // From field 3 (state): 5 is the group; 14 to 17 are utime, stime, cutime, cstime.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Process { id: id.parse().ok()?, group: u32::try_from(field(5)?).ok()?, ticks })
}

/// VmRSS of `/proc/<pid>/status`; a kernel thread has none.
fn resident_of(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kibibytes.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let stat = "42 (a) b (c) S 1 77 77 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 1 0 5 1 2 3";
        let process = parse_stat(stat).unwrap();
        assert_eq!((process.id, process.group, process.ticks), (42, 77, 127));
        assert!(parse_stat("42 (cut) S 1").is_none());
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        assert_eq!(resident_of("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_of("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn our_own_group_is_found_and_uses_memory_and_time() {
        let own = parse_stat(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(members(own.group).any(|process| process.id == std::process::id()));
        assert!(resident_bytes(own.group) > 100 << 10);
        let before = cpu_seconds(own.group);
        let start = std::time::Instant::now();
        while cpu_seconds(own.group) <= before {
            assert!(start.elapsed().as_secs() < 20, "no time was accounted for");
        }
    }
}
