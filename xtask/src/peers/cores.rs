//! Which processor the measured server has for itself, and where everything else runs.

use std::fs;
use std::process::Command;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cores {
    pub proxy: u32,
    /// The upstream's and the load generators'.
    pub rest: u32,
}

impl Cores {
    /// The first two processors that we may use.
    pub fn of_this_machine() -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        match first_two(list.trim()) {
            Some((proxy, rest)) => Ok(Self { proxy, rest }),
            None => Err(Failure::unavailable(format!(
                "this comparison needs two processors, one for the proxy and one for the load; allowed here: {list}"
            ))),
        }
    }
}

/// `program` on one processor.
pub fn pinned(core: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// The two lowest of a list like `0-3,8`.
fn first_two(list: &str) -> Option<(u32, u32)> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    let mut cores = ranges.flatten();
    Some((cores.next()?, cores.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_ranges_and_numbers() {
        assert_eq!(first_two("0-7"), Some((0, 1)));
        assert_eq!(first_two("3,5-6"), Some((3, 5)));
        assert_eq!(first_two("4"), None);
        assert_eq!(first_two(""), None);
    }
}
