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

/// The time that a processor has worked for any process so far, stolen time included.
pub fn core_seconds(core: u32) -> f64 {
    let ticks = fs::read_to_string("/proc/stat").ok().and_then(|stat| core_ticks(&stat, core));
    ticks.unwrap_or_default() as f64 / TICKS_PER_SECOND
}

/// Reads `/proc/stat`, see proc_stat(5). Interrupts are left out: the kernel does not say for whom they are.
fn core_ticks(stat: &str, core: u32) -> Option<u64> {
    let name = format!("cpu{core}");
    let fields: Vec<&str> =
        stat.lines().map(|line| line.split(' ').collect()).find(|fields: &Vec<_>| fields[0] == name)?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    [1, 2, 3, 8].into_iter().map(|index| fields.get(index)?.parse::<u64>().ok()).sum()
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
    fn a_core_works_in_user_nice_system_and_stolen_time() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 7 7 7 7 7 7 7 7 0 0\ncpu10 1 20 300 9 9 9 9 4000 0 0\n";
        assert_eq!(core_ticks(stat, 10), Some(4_321));
        assert_eq!(core_ticks(stat, 2), None);
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
