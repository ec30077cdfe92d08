use super::*;

const HYBRID: &str = "\
36 25 0:31 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
37 36 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
38 36 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 36 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
";

fn id() -> ContainerId {
    "c234567890".parse().expect("an id")
}

fn place(version: Version, dir: &str) -> Option<Place> {
    Some(Place { version, dir: dir.into() })
}

#[test]
fn hierarchies_of_version_1_are_found_by_their_controllers() {
    let found = Cgroups::find(HYBRID, "x");
    assert_eq!(found.memory, place(Version::V1, "/sys/fs/cgroup/memory/edd-x"));
    assert_eq!(found.cpu, place(Version::V1, "/sys/fs/cgroup/cpu,cpuacct/edd-x"));
    assert_eq!(found.freezer, place(Version::V1, "/sys/fs/cgroup/freezer/edd-x"));
    assert!(!found.of(&id()).0.tasks.is_some_and(|_| true), "pids is nowhere");
    assert_eq!(Cgroups::find("1 2 0:1 / / rw - ext4 /dev/vda rw", "x"), Cgroups::default());
}

/// A directory in place of the unified hierarchy's root.
fn unified() -> (tempfile::TempDir, Cgroups) {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::write(root.path().join("cgroup.controllers"), "cpuset cpu memory pids\n").expect("written");
    let mount = format!("30 25 0:26 / {} rw,nosuid - cgroup2 cgroup2 rw\n", root.path().display());
    // Memory is on a hierarchy of its own as well; the first that has it counts.
    let found = Cgroups::find(&(mount + HYBRID), "x");
    (root, found)
}

#[test]
fn the_unified_hierarchy_has_what_its_file_says() {
    let (root, found) = unified();
    let ours = Some(Place { version: Version::V2, dir: root.path().join("edd-x") });
    assert_eq!([&found.memory, &found.cpu, &found.tasks, &found.freezer], [&ours; 4]);
}

#[test]
fn limits_are_written_as_each_version_reads_them() {
    let read = |dir: &Path, file: &str| std::fs::read_to_string(dir.join(file)).expect("written");
    let limits = Limits { memory_mb: 64, cpu_millis: 250 };
    let (root, found) = unified();
    found.of(&id()).make(limits).expect("made");
    let dir = root.path().join("edd-x/c234567890");
    assert_eq!(read(&dir, "memory.max"), "67108864");
    assert_eq!(read(&dir, "cpu.max"), "25000 100000");
    assert_eq!(read(&dir, "pids.max"), "4096");
    found.of(&id()).enter(42).expect("entered");
    assert_eq!(read(&dir, "cgroup.procs"), "42");
    assert_eq!(found.containers(), BTreeSet::from([id()]));

    let root = tempfile::tempdir().expect("a folder");
    let at = Some(Place { version: Version::V1, dir: root.path().to_owned() });
    let first = Cgroup(Cgroups { memory: at.clone(), cpu: at, ..Cgroups::default() });
    std::fs::write(root.path().join("memory.memsw.limit_in_bytes"), "").expect("written");
    first.make(limits).expect("made");
    for (file, value) in [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "25000"),
    ] {
        assert_eq!(read(root.path(), file), value, "{file}");
    }
}

#[tokio::test]
async fn frozen_is_what_the_kernel_says_and_not_what_was_asked() {
    let (root, found) = unified();
    let group = found.of(&id());
    assert!(!group.is_frozen().expect("no group is not frozen"));
    group.make(Limits { memory_mb: 64, cpu_millis: 100 }).expect("made");
    std::fs::write(root.path().join("edd-x/c234567890/cgroup.events"), "populated 1\nfrozen 1\n").expect("written");
    group.freeze(true).await.expect("frozen");
    assert!(group.is_frozen().expect("read"));
}

#[test]
fn kills_for_want_of_memory_are_counted() {
    let (root, found) = unified();
    let group = found.of(&id());
    assert_eq!(group.out_of_memory_kills(), 0);
    group.make(Limits { memory_mb: 64, cpu_millis: 100 }).expect("made");
    std::fs::write(root.path().join("edd-x/c234567890/memory.events"), "oom 2\noom_kill 3\n").expect("written");
    assert_eq!(group.out_of_memory_kills(), 3);
}
