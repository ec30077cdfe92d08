//! The suite of all platforms on every tier, and what is this platform's own.

use super::*;
use crate::compute::platform::{Exit, Input, Output};

/// Not a test of its own: edd's program as far as the platform is concerned, which the tests of this crate do not have.
#[test]
fn stands_in_for_the_command() {
    if std::env::var_os(role::VARIABLE).is_some() {
        role::play().expect("a part played to its end");
    }
}

/// This test program, told to run the above.
fn program() -> Program {
    let name = "compute::platform::local::tests::stands_in_for_the_command";
    Program {
        path: std::env::current_exe().expect("a path"),
        arguments: [name, "--exact", "--nocapture"].map(str::to_owned).to_vec(),
    }
}

#[tokio::test]
async fn smoke() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = std::time::Instant::now();
    let local = Local::start(Config {
        tier: std::env::var("TIER").ok().map(|t| match t.as_str() {
            "user" => Tier::User,
            "plain" => Tier::Plain,
            _ => Tier::Root,
        }),
        ready_timeout: Duration::from_secs(5),
        ..Config::new(folder.path(), program())
    })
    .await
    .expect("started");
    println!("{:?} {:?}", started.elapsed(), local.capabilities());
    let spec = Spec {
        id: "c234567890".parse().expect("an id"),
        owner: "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id"),
        name: "first".to_owned(),
        image: "default".to_owned(),
        pull: Default::default(),
        memory_mb: 64,
        cpu_millis: 500,
        storage_gb: 1,
        mount_paths: vec!["/root".to_owned()],
        environment: Default::default(),
    };
    local.ensure(&spec).await.expect("made");
    println!("{:?}", started.elapsed());
    let seen = local.start(spec.id).await.expect("started");
    println!("{:?} {seen:?}", started.elapsed());
    let dir = folder.path().join("containers/c234567890");
    println!("log: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default());
    for terminal in [None, Some(super::super::Size { columns: 80, rows: 24 })] {
        let session = local.exec(spec.id, Exec { command: ["sh", "-c", "id; hostname; pwd; [ -n \"$TMPDIR\" ] || ps -ef; mount | head -40; ip a; tty; cat /proc/self/status | grep Cap; stty size; ls -la /; free -m; read x; echo got $x; exit 3"].map(str::to_owned).to_vec(), environment: Default::default(), terminal }).await;
        let mut session = match session {
            Ok(s) => s,
            Err(e) => {
                println!("{e}");
                continue;
            }
        };
        session.input.send(Input::Bytes("hello\n".into())).await.expect("sent");
        while let Some(output) = session.output.recv().await {
            match output {
                Output::Stdout(b) => print!("{}", String::from_utf8_lossy(&b)),
                Output::Stderr(b) => print!("E {}", String::from_utf8_lossy(&b)),
                Output::Exit(e) => println!("{e:?} {}", e == Exit::Code(3)),
            }
        }
    }
    println!("{:?}", started.elapsed());
    local.stop(spec.id, Duration::from_secs(3)).await.expect("stopped");
    println!("stop {:?} {:?}", started.elapsed(), local.observe(spec.id).await);
    local.delete(spec.id).await.expect("deleted");
    local.shutdown(Duration::from_secs(1)).await;
    println!("{:?}", started.elapsed());
}
