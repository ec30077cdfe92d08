//! Who comes in, and who does not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{CONTAINER, PATIENCE, Setting, World, finish, make_key, text, until};
use crate::ssh::admission::{Outcome, Target};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_its_container_as_root_and_as_the_user_that_is_named() {
    let world = World::new().await;
    let whoami = world.run("whoami", b"").await;
    assert_eq!((text(&whoami.stdout), text(&whoami.stderr)), ("root\n".to_owned(), String::new()));
    let mut named = world.ssh_as(&format!("root.{CONTAINER}"), &[]);
    named.arg("whoami");
    assert_eq!(text(&finish(named, b"").await.stdout), "root\n");
    assert!(world.diary.has(&format!("began {CONTAINER}")) && world.diary.has("began Command(\"whoami\")"));
    let mut stays = world.ssh(&["-N"]).spawn().unwrap();
    let admitted = || world.doorman.outcomes.lock().unwrap().iter().filter(|it| **it == Outcome::Admitted).count();
    until("a third that is in, and no longer counted as one that knocks", || admitted() == 3).await;
    stays.kill().unwrap();
    stays.wait().unwrap();
    until("its end", || world.diary.has("ended client_left")).await;
    world.stop().await;
}

/// What nobody is known to use may be put to sleep.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_before_compute_knows_of_the_login() {
    let world = World::new().await;
    world.compute.is_open.send_replace(false);
    let told = || world.compute.told.lock().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
    let (_, output) = tokio::join!(
        async {
            until("a report", || told() == [CONTAINER]).await;
            // Who did not wait would be in the container after as long as a login takes; who waits does not for ever.
            let login = finish(world.straight("true"), b"");
            let _ = tokio::time::timeout(Duration::from_secs(1), login).await;
            assert!(!world.diary.has("opened"), "{:?}", world.diary.lines());
            world.compute.is_open.send_replace(true);
        },
        world.run("echo in", b"")
    );
    assert_eq!(text(&output.stdout), "in\n", "{}", text(&output.stderr));
    assert_eq!(text(&world.run("echo again", b"").await.stdout), "again\n");
    assert_eq!(told(), [CONTAINER], "it was told a moment ago");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_wrong_keys_and_then_the_right_one_are_let_in_and_wrong_ones_alone_are_not() {
    let world = World::new().await;
    let wrong: Vec<_> = (0..10).map(|number| world.path(&format!("wrong{number}"))).collect();
    wrong.iter().for_each(|path| drop(make_key(path)));
    let options: Vec<&str> = wrong.iter().flat_map(|path| ["-i", path.to_str().unwrap()]).collect();
    // The identities of the command line are tried in their order, and the right one comes last.
    let mut command = std::process::Command::new("ssh");
    command.args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    command.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-p", &world.address.port().to_string()]);
    command.args(&options);
    let mut refused = std::process::Command::new("ssh");
    refused.args(command.get_args());
    command.arg("-i").arg(world.path("key")).arg(format!("{CONTAINER}@127.0.0.1")).arg("echo in");
    let begun = Instant::now();
    let let_in = finish(command, b"").await;
    assert_eq!(text(&let_in.stdout), "in\n", "{}", text(&let_in.stderr));
    assert!(begun.elapsed() < Duration::from_secs(20), "wrong keys are no reason to wait");
    refused.arg(format!("{CONTAINER}@127.0.0.1")).arg("echo in");
    let refused = finish(refused, b"").await;
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(255), String::new()));
    assert!(text(&refused.stderr).contains("Permission denied (publickey)"), "{}", text(&refused.stderr));
    until("the outcome", || {
        let outcomes = world.doorman.outcomes.lock().unwrap();
        outcomes.contains(&Outcome::Admitted)
            && outcomes.contains(&Outcome::Unauthenticated { keys: 0, passwords: 0, timed_out: false })
    })
    .await;
    assert!(world.diary.has(&format!("turned away {CONTAINER} unknown_key")));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_in_time_is_cut_off_and_noise_is_known_as_such() {
    let world = World::with(Setting { login_grace: Duration::from_millis(300), ..Setting::default() }).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut said = Vec::new();
    // A reset is as good an end as any.
    let _ = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut said)).await.expect("an end");
    assert!(said.starts_with(b"SSH-2.0-edd\r\n"), "{said:?}");
    let timed_out = Outcome::Unauthenticated { keys: 0, passwords: 0, timed_out: true };
    until("the outcome", || world.doorman.outcomes.lock().unwrap().contains(&timed_out)).await;
    let mut noise = TcpStream::connect(world.address).await.unwrap();
    noise
        .write_all(b"SSH-2.0-noise\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
        .await
        .unwrap();
    let _ = tokio::time::timeout(PATIENCE, noise.read_to_end(&mut said)).await.expect("an end");
    until("the outcome", || world.doorman.outcomes.lock().unwrap().contains(&Outcome::Garbage)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_another_host_key_is_not_spoken_to_and_the_user_is_told() {
    let world = World::new().await;
    if let Target::Sshd { host_key_fingerprint, .. } = &mut *world.doorman.target.lock().unwrap() {
        "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".clone_into(host_key_fingerprint);
    }
    let output = world.run("echo in", b"").await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(255), String::new()));
    assert!(text(&output.stderr).contains("which is not its own"), "{}", text(&output.stderr));
    until("its end", || world.diary.has("ended host_key")).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_leads_to_the_containers_own_server_and_nowhere_else() {
    let world = World::new().await;
    let port = world.address.port();
    let proxy = |target: &str| {
        let key = world.path("key").display().to_string();
        format!(
            "ProxyCommand=ssh -F /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
             -o IdentitiesOnly=yes -i {key} -p {port} -W {target} jump@127.0.0.1"
        )
    };
    let through = |target: &str| {
        let mut command = world.command("ssh");
        command.args(["-o", &proxy(target), &format!("root@{CONTAINER}"), "echo through"]);
        command
    };
    let jumped = finish(through(&format!("{CONTAINER}:22")), b"").await;
    assert_eq!(text(&jumped.stdout), "through\n", "{}", text(&jumped.stderr));
    for elsewhere in ["127.0.0.1:22", "localhost:22", &format!("{CONTAINER}:80")] {
        let refused = finish(through(elsewhere), b"").await;
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(255), String::new()), "{elsewhere}");
    }
    let mut shell = world.ssh_as("jump", &[]);
    shell.arg("whoami");
    let refused = finish(shell, b"").await;
    assert!(text(&refused.stderr).contains("ssh -J"), "{}", text(&refused.stderr));
    *world.doorman.target.lock().unwrap() = Target::Exec;
    let refused = finish(through(&format!("{CONTAINER}:22")), b"").await;
    assert!(text(&refused.stderr).contains("has no SSH server of its own"), "{}", text(&refused.stderr));
    world.stop().await;
}

/// Behind a balancer that may put a header before everything, or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_that_sends_no_header_is_spoken_to_and_believed_no_later() {
    let setting = Setting { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..Setting::default() };
    let world = World::with(setting).await;
    let arrived = || world.doorman.arrived.lock().unwrap().clone();
    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 22\r\n";
    const BANNER: &[u8] = b"SSH-2.0-edd\r\n";
    let mut said = vec![0; BANNER.len()];
    // As ssh-keyscan does, which waits for the server's line.
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    silent.read_exact(&mut said).await.unwrap();
    assert_eq!((&said[..], &arrived()[..]), (BANNER, &["127.0.0.1".parse::<IpAddr>().unwrap()][..]));
    // What comes now is the client's own.
    silent.write_all(HEADER).await.unwrap();
    silent.write_all(b"SSH-2.0-late\r\n").await.unwrap();
    // A reset is as good an end as any.
    let _ = silent.read_to_end(&mut said).await;
    until("the outcome", || world.doorman.outcomes.lock().unwrap().contains(&Outcome::Garbage)).await;
    assert_eq!(arrived().len(), 1);
    // One that has begun in time has time to end.
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(&HEADER[..1]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(arrived().len(), 1, "it is not taken for a client");
    slow.write_all(&HEADER[1..]).await.unwrap();
    slow.read_exact(&mut said[..BANNER.len()]).await.unwrap();
    assert_eq!(arrived()[1], "203.0.113.7".parse::<IpAddr>().unwrap());
    drop(slow);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_ecdsa_alone_gets_it_where_that_is_set() {
    for shows_nist_keys in [true, false] {
        let world = World::with(Setting { shows_nist_keys, ..Setting::default() }).await;
        let mut command =
            world.ssh(&["-o", "HostKeyAlgorithms=ecdsa-sha2-nistp256", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("echo in");
        let output = finish(command, b"").await;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        if shows_nist_keys {
            assert_eq!(stdout, "in\n", "{stderr}");
        } else {
            assert!(stderr.contains("no matching host key type found"), "{stderr}");
        }
        // Others have no reason to change.
        assert_eq!(text(&world.run("echo in", b"").await.stdout), "in\n");
        world.stop().await;
    }
}
