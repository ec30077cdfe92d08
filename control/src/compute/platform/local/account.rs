//! Whom a session runs as, by the container's own word.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid};

/// A line of `/etc/passwd`, and the groups of `/etc/group` that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    pub(super) home: PathBuf,
    shell: String,
}

impl Account {
    /// The account of this name. Root is there even without files.
    pub(super) fn named(name: &str) -> io::Result<Self> {
        // What cannot be read names nobody.
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        let found = Self::find(name, &file("/etc/passwd"), &file("/etc/group"));
        let root = || (name == "root").then(|| Self::root("/root", ""));
        found.or_else(root).ok_or_else(|| io::Error::other(format!("there is no user `{name}` in this container")))
    }

    fn find(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = line.into_iter().find(|fields| fields.len() >= 7 && fields[0] == name)?;
        let (uid, gid) = (fields[2].parse().ok()?, fields[3].parse().ok()?);
        let has_it = |members: &str| members.split(',').any(|member| member == name);
        let groups = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let groups = groups.filter(|fields| fields.len() >= 4 && has_it(fields[3]));
        Some(Self {
            name: name.to_owned(),
            uid,
            gid,
            groups: groups.filter_map(|fields| fields[2].parse().ok()).chain([gid]).collect(),
            home: fields[5].into(),
            shell: fields[6].to_owned(),
        })
    }

    fn root(home: &str, shell: &str) -> Self {
        let (name, home, shell) = ("root".to_owned(), home.into(), shell.to_owned());
        Self { name, uid: 0, gid: 0, groups: vec![0], home, shell }
    }

    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// The shell to log in with, if it is there.
    pub(super) fn shell(&self) -> &str {
        if Path::new(&self.shell).is_file() { &self.shell } else { "/bin/sh" }
    }

    /// What the account's own programs see of `common`, which is root's.
    pub(super) fn environment(&self, common: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = common.clone();
        if !self.is_root() {
            let home = self.home.to_string_lossy();
            let own = [("HOME", &*home), ("USER", &self.name), ("LOGNAME", &self.name)];
            all.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        all.insert("SHELL".to_owned(), self.shell().to_owned());
        all
    }

    /// Gives `fd`, a terminal, to the account.
    pub(super) fn own(&self, fd: impl std::os::fd::AsFd) -> io::Result<()> {
        Ok(rustix::fs::fchown(fd, Some(Uid::from_raw(self.uid)), None)?)
    }

    /// Has `start` start a child as this account. The kernel gives a child the rights of the thread that makes it, so
    /// that a thread gives up its own and is gone afterwards.
    pub(super) fn start<T: Send>(&self, start: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if self.is_root() {
            return start();
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let started = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                rustix::thread::set_thread_groups(&groups)?;
                rustix::thread::set_thread_res_gid(gid, gid, gid)?;
                rustix::thread::set_thread_res_uid(uid, uid, uid)?;
                start()
            });
            thread.join()
        });
        started.unwrap_or_else(|_| Err(io::Error::other("the thread that was to start it failed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:x\nuser:x:1000:1001:A User,,:/home/user:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:other,user\nusers:x:100:user\nuser2:x:101:user2\n";

    #[test]
    fn an_account_has_its_groups_home_and_shell() {
        let account = Account::find("user", PASSWD, GROUP).expect("an account");
        assert_eq!((account.uid, account.gid, &account.groups[..]), (1000, 1001, &[27, 100, 1001][..]));
        assert_eq!((account.home.as_path(), account.shell()), (Path::new("/home/user"), "/bin/sh"));
        for nobody in ["", "broken", "use", "user2", "1000"] {
            assert_eq!(Account::find(nobody, PASSWD, GROUP), None, "{nobody}");
        }
    }

    #[test]
    fn who_logs_in_is_told_who_they_are() {
        let common = [("HOME", "/elsewhere"), ("USER", "root"), ("PATH", "/bin")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let of = |name| Account::find(name, PASSWD, GROUP).expect("an account").environment(&common.clone().into());
        let user = of("user");
        assert_eq!(
            [&user["HOME"], &user["USER"], &user["SHELL"], &user["PATH"]],
            ["/home/user", "user", "/bin/sh", "/bin"]
        );
        assert_eq!([&of("root")["HOME"], &of("root")["USER"]], ["/elsewhere", "root"]);
    }

    #[test]
    fn a_shell_that_is_not_there_is_replaced() {
        assert_eq!(Account::root("/root", "/no/such/shell").shell(), "/bin/sh");
        assert_eq!(Account::root("/root", "").shell(), "/bin/sh");
    }
}
