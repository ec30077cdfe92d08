//! Containers without sshd: their platform runs what a session asks for.

use super::world::{CONTAINER, World, finish, text};
use crate::ssh::admission::Target;
use crate::ssh::exec::Size;

async fn world() -> World {
    let world = World::new().await;
    *world.doorman.target.lock().unwrap() = Target::Exec;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_its_input_and_gives_its_output_status_or_signal() {
    let world = world().await;
    let sent = vec![42; 3_000_000];
    let cat = world.run("cat", &sent).await;
    assert!(cat.stdout == sent && cat.status.success(), "{} bytes, {}", cat.stdout.len(), text(&cat.stderr));
    let err = world.run("err oh", b"").await;
    assert_eq!((text(&err.stdout), text(&err.stderr)), (String::new(), "oh".to_owned()));
    assert_eq!(world.run("exit 7", b"").await.status.code(), Some(7));
    assert_eq!(world.run("kill TERM", b"").await.status.code(), Some(255));
    let missing = world.run("missing", b"").await;
    assert_eq!((missing.status.code(), text(&missing.stderr)), (Some(126), "edd: there is no such program\r\n".into()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_started_is_what_was_asked_for() {
    let world = world().await;
    let mut shell = world.ssh_as(&format!("user.{CONTAINER}"), &["-tt", "-o", "SetEnv=LC_TEST=hello SECRET=no"]);
    shell.env("TERM", "xterm-test");
    let _ = finish(shell, b"\x04").await;
    let mut sftp = world.ssh(&["-s"]);
    sftp.arg("sftp");
    let _ = finish(sftp, b"").await;
    let mut other = world.ssh(&["-s"]);
    other.arg("netconf");
    let refused = finish(other, b"").await;
    assert!(text(&refused.stderr).contains("subsystem request failed"), "{}", text(&refused.stderr));
    let started = world.platform.started.lock().unwrap().clone();
    let [shell, sftp] = &started[..] else { panic!("{started:?}") };
    assert!(shell.command.is_empty() && shell.user == "user" && shell.terminal.is_some());
    let variables: Vec<_> = shell.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(variables, ["LC_TEST=hello", "TERM=xterm-test"]);
    assert_eq!(&sftp.command[..2], ["/bin/sh", "-c"]);
    assert!(sftp.command[2].contains("sftp-server") && sftp.user == "root" && sftp.terminal.is_none());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_its_size_and_what_needs_a_server_is_refused_with_a_reason() {
    let world = world().await;
    let mut sized = world.ssh(&["-tt"]);
    sized.arg("size");
    let output = text(&finish(sized, b"").await.stdout);
    // Without a terminal of its own, OpenSSH's client says that it has none of any size.
    assert_eq!(output, format!("{:?}\n", Some(Size { columns: 0, rows: 0 })));
    let refused = finish(world.ssh(&["-W", "127.0.0.1:80"]), b"").await;
    assert!(text(&refused.stderr).contains("which forwarding needs"), "{}", text(&refused.stderr));
    world.stop().await;
}
