//! What keeps containers apart, and what happens when their keepers die.

use std::process::Stdio;

use super::*;
use crate::compute::platform::{Exit, Output};

fn spec(name: &str) -> Spec {
    Spec {
        id: ContainerId::random(&mut rand::rng()),
        owner: edd_proto::UserId::random(&mut rand::rng()),
        name: name.to_owned(),
        image: "default".to_owned(),
        pull: Default::default(),
        memory_mb: 96,
        cpu_millis: 1000,
        storage_gb: 1,
        mount_paths: vec!["/root".to_owned()],
        environment: BTreeMap::new(),
    }
}

pub(super) async fn started(local: &Local, spec: &Spec) -> Observed {
    local.ensure(spec).await.expect("made");
    local.start(spec.id).await.expect("started")
}

/// How a script ends, and what it writes.
pub(super) async fn run(local: &Local, id: ContainerId, script: &str) -> (Exit, String) {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut session = local.exec(id, Exec { command, ..Exec::default() }).await.expect("a session");
    let mut said = String::new();
    loop {
        match session.output.recv().await.expect("an exit before the end") {
            Output::Stdout(bytes) | Output::Stderr(bytes) => said += &String::from_utf8_lossy(&bytes),
            Output::Exit(exit) => return (exit, said),
        }
    }
}

async fn end(here: &Here, local: &Local, ids: &[ContainerId]) {
    for id in ids {
        local.delete(*id).await.expect("deleted");
        assert_eq!(here.leftovers(*id), Vec::<String>::new());
    }
    local.shutdown(Duration::from_secs(5)).await;
}

/// Calls a test on every tier that can be had.
macro_rules! on_tiers {
    ($($name:ident: $($tier:ident),+;)+) => {$(
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[expect(non_snake_case, reason = "named for the tier")]
                async fn $tier() {
                    if let Some(here) = super::super::Here::on(super::super::Tier::$tier) {
                        super::$name(&here).await;
                    }
                }
            )+
        }
    )+};
}
pub(super) use on_tiers;

on_tiers! {
    containers_do_not_reach_one_another: Root;
    an_address_is_found_where_it_was: Root;
    root_in_a_container_has_no_power_over_the_machine: Root, User;
    the_death_of_a_keeper_ends_the_container: Root, User, Plain;
    what_an_edd_left_is_cleared_away: Root;
    one_edd_at_a_time: Plain;
    a_damaged_container_harms_no_other: Plain;
}

async fn containers_do_not_reach_one_another(here: &Here) {
    let local = here.local().await;
    let (one, other) = (spec("one"), spec("other"));
    started(&local, &one).await;
    let address = started(&local, &other).await.address.expect("an address");
    tokio::net::TcpStream::connect((address, 80)).await.expect("the machine reaches it");
    let reach = |address: &str| format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/80' && echo reached");
    let (_, said) = run(&local, other.id, &reach("127.0.0.1")).await;
    assert_eq!(said, "reached\n", "it reaches itself, or the next would show nothing");
    let (exit, said) = run(&local, one.id, &reach(&address.to_string())).await;
    assert_ne!(exit, Exit::Code(0), "{said}");
    end(here, &local, &[one.id, other.id]).await;
}

/// The machine remembers for half a minute which MAC address goes with an address, and sends there.
async fn an_address_is_found_where_it_was(here: &Here) {
    let local = here.local().await;
    let (neighbour, one, heir) = (spec("neighbour"), spec("one"), spec("heir"));
    started(&local, &neighbour).await;
    let before = place(&local, &one).await;
    local.stop(one.id, Duration::from_secs(1)).await.expect("stopped");
    assert_eq!(place(&local, &one).await, before, "after a restart");
    local.delete(one.id).await.expect("deleted");
    assert_eq!(place(&local, &heir).await, before, "of who comes after");
    end(here, &local, &[neighbour.id, heir.id]).await;
}

/// The address and the MAC address of a container that is started.
async fn place(local: &Local, spec: &Spec) -> (std::net::IpAddr, String) {
    let address = started(local, spec).await.address.expect("an address");
    let (exit, mac) = run(local, spec.id, "cat /sys/class/net/eth0/address").await;
    assert_eq!(exit, Exit::Code(0), "{mac}");
    (address, mac)
}

async fn root_in_a_container_has_no_power_over_the_machine(here: &Here) {
    let local = here.local().await;
    let spec = spec("root");
    started(&local, &spec).await;
    let (_, said) =
        run(&local, spec.id, "id -u; echo own > /etc/own; cat /etc/own; chown 0:0 /etc/own && echo owned").await;
    assert_eq!(said, "0\nown\nowned\n", "it is root of its own");
    for script in [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /usr",
        "umount /usr",
        "touch /usr/written",
        "mknod /tmp/disk b 254 0",
        "hostname other",
        "echo other > /proc/sys/kernel/hostname",
        "ip link add x type dummy",
        "cat /etc/shadow",
        "kill -9 1; kill -0 1 && exit 1",
        "cat /proc/1/environ | grep -q . && cat /proc/1/mem",
        "dd if=/dev/vda of=/dev/null count=1",
        "test -e /dev/kmsg",
    ] {
        let (exit, said) = run(&local, spec.id, script).await;
        assert_ne!(exit, Exit::Code(0), "{script}: {said}");
    }
    let (_, processes) = run(&local, spec.id, "ls -d /proc/[0-9]* | wc -l").await;
    let processes: u32 = processes.trim().parse().expect("a number");
    assert!(processes < 10, "it sees {processes} processes");
    assert!(!Path::new("/usr/written").exists());
    end(here, &local, &[spec.id]).await;
}

async fn the_death_of_a_keeper_ends_the_container(here: &Here) {
    let local = here.local().await;
    let spec = spec("orphan");
    let kills: [fn(&Run); 2] = [|run| run.supervisor.kill(), |run| run.init.kill()];
    for kill in kills {
        assert_eq!(started(&local, &spec).await.phase, Phase::Running);
        let (_, said) = run(&local, spec.id, "setsid sleep 1000 > /dev/null 2>&1 & echo left").await;
        assert_eq!(said, "left\n");
        let mut changes = local.watch();
        let home = local.0.home(spec.id);
        let run = home.run().expect("read").expect("it runs");
        kill(&run);
        assert_eq!(changes.recv().await, Ok(spec.id));
        let phase = local.observe(spec.id).await.expect("observed").expect("there").phase;
        assert_eq!(phase, Phase::Failed("it was killed from outside".to_owned()));
    }
    local.stop(spec.id, Duration::from_secs(1)).await.expect("stopped");
    assert_eq!(local.observe(spec.id).await.expect("observed").expect("there").phase, Phase::Stopped);
    end(here, &local, &[spec.id]).await;
}

async fn what_an_edd_left_is_cleared_away(here: &Here) {
    let local = here.local().await;
    let (spec, unknown) = (spec("left"), ContainerId::random(&mut rand::rng()));
    started(&local, &spec).await;
    // All of it dies at once, and a group is left of a container that nobody knows.
    let run = local.0.home(spec.id).run().expect("read").expect("it runs");
    let group = local.0.cgroups.as_ref().expect("control groups").of(&unknown);
    group.make(cgroup::Limits { memory_mb: 64, cpu_millis: 100 }).expect("made");
    let sleep = || std::process::Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut stray = sleep().expect("a process");
    group.enter(stray.id().cast_signed()).expect("entered");
    let mut bystander = sleep().expect("a process");
    drop(local);
    run.supervisor.kill();
    run.init.kill();
    let local = here.local().await;
    let phase = local.observe(spec.id).await.expect("observed").expect("there").phase;
    assert_eq!(phase, Phase::Failed("it was killed from outside".to_owned()));
    assert_eq!(here.leftovers(spec.id), Vec::<String>::new());
    assert_eq!(here.leftovers(unknown), Vec::<String>::new());
    assert!(!stray.wait().expect("its end").success());
    assert_eq!(bystander.try_wait().expect("its state"), None, "what carries no label of ours was touched");
    bystander.kill().and_then(|()| bystander.wait()).expect("its end");
    assert_eq!(local.start(spec.id).await.expect("started").phase, Phase::Running);
    end(here, &local, &[spec.id]).await;
}

async fn one_edd_at_a_time(here: &Here) {
    let local = here.local().await;
    let error = Local::start(here.config()).await.expect_err("there is one").to_string();
    assert!(error.contains("another edd runs the containers in"), "{error}");
    drop(local);
    here.local().await.shutdown(Duration::ZERO).await;
}

async fn a_damaged_container_harms_no_other(here: &Here) {
    let local = here.local().await;
    let (good, bad) = (spec("good"), spec("bad"));
    local.ensure(&good).await.expect("made");
    local.ensure(&bad).await.expect("made");
    let file = local.0.home(bad.id).dir().join("container.json");
    std::fs::write(&file, "{").expect("written");
    drop(local);
    let local = here.local().await;
    let ids: Vec<ContainerId> = local.list().await.expect("a list").into_iter().map(|seen| seen.id).collect();
    assert_eq!(ids, [good.id]);
    let error = local.start(bad.id).await.expect_err("damaged").to_string();
    assert!(error.contains("container.json is damaged"), "{error}");
    assert!(file.exists(), "nobody knows what it holds");
    end(here, &local, &[good.id]).await;
}
