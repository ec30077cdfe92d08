//! What an owner asks for, read and checked.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{Invalid, WantedRule};
use crate::compute::platform::PullPolicy;

/// The state that a container is to be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Running,
    /// Asleep, because its owner said so.
    Hibernated,
    /// Asleep, because nobody used it: whoever does wakes it.
    Idle,
    Stopped,
}

impl Wanted {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Hibernated => "hibernated",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::Running, Self::Hibernated, Self::Idle, Self::Stopped].into_iter().find(|it| it.as_str() == text)
    }

    pub fn is_asleep(self) -> bool {
        matches!(self, Self::Hibernated | Self::Idle)
    }
}

/// A container's name: its owner's word for it, and its own host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName(String);

impl ContainerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= 63 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new("name", "1 to 63 of A-Z, a-z, 0-9, '.', '_' and '-', the first a letter or a digit"))
        }
    }
}

/// A size by name, which says how much of a processor it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstanceType {
    #[default]
    Nano,
    Micro,
    Small,
    Medium,
    Large,
}

impl InstanceType {
    const ALL: [Self; 5] = [Self::Nano, Self::Micro, Self::Small, Self::Medium, Self::Large];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nano => "nano",
            Self::Micro => "micro",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// Thousandths of a processor.
    pub fn cpu_millis(self) -> u32 {
        match self {
            Self::Nano => 250,
            Self::Micro => 500,
            Self::Small => 1000,
            Self::Medium => 2000,
            Self::Large => 4000,
        }
    }
}

impl FromStr for InstanceType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| Invalid::new("instance_type", "nano, micro, small, medium or large"))
    }
}

impl PullPolicy {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl FromStr for PullPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = [Self::Always, Self::IfNotPresent, Self::Never].into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| Invalid::new("pull_policy", "Always, IfNotPresent or Never"))
    }
}

/// Shortest and longest time without requests after which a container is put to sleep, seconds.
pub const MIN_IDLE_TIMEOUT_S: u32 = 60;
pub const MAX_IDLE_TIMEOUT_S: u32 = 30 * 24 * 3600;

/// The directories that outlive a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPaths(Vec<String>);

impl MountPaths {
    const MOST: usize = 16;
    const MAX_BYTES: usize = 255;
    /// What the platform itself puts there.
    const RESERVED: [&str; 3] = ["/proc", "/sys", "/dev"];

    /// # Errors
    /// One is not absolute and plain, is the root or the kernel's, or lies within another.
    pub fn parse(paths: Vec<String>) -> Result<Self, Invalid> {
        let refuse = |rule: String| Err(Invalid::new("mount_paths", rule));
        if paths.len() > Self::MOST {
            return refuse(format!("at most {}", Self::MOST));
        }
        for path in &paths {
            let rule = Self::rule_that_is_broken(path);
            if let Some(rule) = rule {
                return refuse(format!("{path:?} {rule}"));
            }
        }
        let distinct: BTreeSet<&String> = paths.iter().collect();
        if distinct.len() < paths.len() {
            return refuse("each directory once".to_owned());
        }
        for (outer, inner) in paths.iter().flat_map(|outer| paths.iter().map(move |inner| (outer, inner))) {
            if inner.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                return refuse(format!("{inner:?} lies within {outer:?}, which keeps it already"));
            }
        }
        Ok(Self(paths))
    }

    fn rule_that_is_broken(path: &str) -> Option<&'static str> {
        let Some(relative) = path.strip_prefix('/') else { return Some("is not absolute: begin with /") };
        if path.len() > Self::MAX_BYTES {
            return Some("is longer than 255 bytes");
        }
        if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Some("is not plain: write it without //, . and .., and not / itself");
        }
        if path.chars().any(|c| c.is_control() || matches!(c, ':' | ',' | '\\')) {
            return Some("has characters that no mount can have: control characters, ':', ',' or '\\'");
        }
        let is_within =
            |top: &&str| path.strip_prefix(*top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        Self::RESERVED.iter().any(is_within).then_some("belongs to the kernel")
    }

    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// A container to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedContainer {
    pub name: ContainerName,
    pub memory_mb: u32,
    pub storage_gb: u32,
    pub instance_type: InstanceType,
    /// None: the platform's default.
    pub image: Option<String>,
    pub pull: PullPolicy,
    pub mount_paths: MountPaths,
    pub ssh_enabled: bool,
    /// None: all of the owner's keys may log in.
    pub ssh_keys: Option<Vec<i64>>,
    /// Ports that are to lead to it from the start.
    pub ingress: Vec<WantedRule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_host_may_be_called() {
        let longest = "a".repeat(63);
        for text in ["blog", "My.Blog_2-x", "7", " blog ", &longest] {
            assert_eq!(text.parse::<ContainerName>().expect(text).as_str(), text.trim());
        }
        let too_long = "a".repeat(64);
        for text in ["", " ", "-a", ".", "..", "a b", "a/b", "a\nb", "é", "$(id)", "a;b", &too_long] {
            let refused = text.parse::<ContainerName>().expect_err(text).to_string();
            assert!(refused.starts_with("name: 1 to 63"), "{refused}");
        }
    }

    #[test]
    fn mount_paths_are_plain_directories_below_the_root() {
        let parse = |paths: &[&str]| MountPaths::parse(paths.iter().map(|path| (*path).to_owned()).collect());
        for paths in [&["/root"][..], &[], &["/srv/www", "/var/lib/x", "/devices", "/a b"]] {
            assert!(parse(paths).is_ok(), "{paths:?}");
        }
        let long = format!("/{}", "x".repeat(255));
        for (paths, why) in [
            (&["root"][..], "not absolute"),
            (&[""], "not absolute"),
            (&["/"], "not plain"),
            (&["/a/../etc"], "not plain"),
            (&["/a/."], "not plain"),
            (&["/a//b"], "not plain"),
            (&["/a/"], "not plain"),
            (&["/proc"], "kernel"),
            (&["/proc/1/root"], "kernel"),
            (&["/sys/fs"], "kernel"),
            (&["/dev"], "kernel"),
            (&["/a:b"], "characters"),
            (&["/a\nb"], "characters"),
            (&["/a", "/a"], "once"),
            (&["/a/b", "/a"], "lies within"),
            (&[&long], "255"),
            (&["/a"; 17], "at most 16"),
        ] {
            let refused = parse(paths).expect_err(why).to_string();
            assert!(refused.starts_with("mount_paths: ") && refused.contains(why), "{refused}");
        }
    }
}
