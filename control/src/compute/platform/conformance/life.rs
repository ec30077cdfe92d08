//! Containers come and go.

use super::*;

pub(in crate::compute::platform) async fn it_starts_answers_and_stops(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("a <name> of its owner's; $(touch /tmp/x) \u{202e}");
    platform.ensure(&spec).await.expect("made");
    assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    let observed = started(&platform, &spec).await;
    assert_eq!(platform.observe(spec.id).await.expect("observed"), Some(observed.clone()));
    assert_eq!(platform.list().await.expect("a list"), std::slice::from_ref(&observed));
    let answer = page(&observed).await;
    assert!(answer.contains(spec.id.as_str()) && answer.contains(&spec.name), "{answer}");
    for _ in 0..2 {
        within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
        let stopped = platform.observe(spec.id).await.expect("observed").expect("there");
        assert_eq!((stopped.phase, stopped.address), (Phase::Stopped, None));
    }
    // Where nobody has the address the machine asks for it for seconds, or a router takes the connection.
    let again = tokio::time::timeout(Duration::from_millis(100), reply(&observed)).await;
    assert!(!matches!(&again, Ok(Ok(answer)) if answer.contains(spec.id.as_str())), "it still answers: {again:?}");
    nothing_is_left(machine, spec.id).await;
    assert!(page(&started(&platform, &spec).await).await.contains(spec.id.as_str()));
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn what_is_there_already_stays(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("first");
    let before = started(&platform, &spec).await;
    said(&platform, spec.id, "echo kept > $HOME/kept").await;
    let renamed = Spec { name: "second".to_owned(), ..spec.clone() };
    platform.ensure(&renamed).await.expect("changed");
    assert_eq!(platform.observe(spec.id).await.expect("observed"), Some(before.clone()), "a change restarts nothing");
    assert!(page(&before).await.contains("first"));
    assert_eq!(platform.start(spec.id).await.expect("runs"), before);
    platform.stop(spec.id, GRACE).await.expect("stopped");
    let after = started(&platform, &renamed).await;
    assert!(page(&after).await.contains("second"));
    assert_eq!(said(&platform, spec.id, "cat $HOME/kept").await, "kept\n");
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn two_starts_are_one(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (one, other) = (spec("one"), spec("other"));
    platform.ensure(&one).await.expect("made");
    platform.ensure(&other).await.expect("made");
    // One is cut off: what it began is not lost, and not begun twice.
    drop(tokio::time::timeout(Duration::ZERO, platform.start(one.id)).await);
    let starts = async {
        tokio::join!(platform.start(one.id), platform.start(one.id), platform.start(other.id), platform.start(other.id))
    };
    let (a, b, c, d) = within("starts", starts).await;
    let (a, c) = (a.expect("started"), c.expect("started"));
    assert_eq!((&a, &c), (&b.expect("started"), &d.expect("started")));
    assert!(a.phase == Phase::Running && c.phase == Phase::Running && address(&a) != address(&c), "{a:?} {c:?}");
    assert!(page(&a).await.contains("one") && page(&c).await.contains("other"));
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn what_is_unknown_is_not_found(machine: &dyn Machine) {
    let platform = machine.open().await;
    let id = ContainerId::random(&mut rand::rng());
    let not_found = || PlatformError::NotFound(id);
    assert_eq!(platform.start(id).await, Err(not_found()));
    assert_eq!(platform.stop(id, GRACE).await, Err(not_found()));
    assert_eq!(platform.pause(id).await, Err(not_found()));
    assert_eq!(platform.exec(id, shell("true")).await.map(drop), Err(not_found()));
    assert_eq!(platform.logs(id, LogQuery { tail: 1, follow: true }).await.map(drop), Err(not_found()));
    assert_eq!(platform.observe(id).await, Ok(None));
    assert_eq!(platform.delete(id).await, Ok(()));
    assert_eq!(platform.list().await, Ok(Vec::new()));
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn what_cannot_be_is_impossible(machine: &dyn Machine) {
    let platform = machine.open().await;
    let good = spec("good");
    let mount = |path: &str| Spec { mount_paths: vec![path.to_owned()], ..good.clone() };
    let wrong = [
        Spec { image: "no-such-image".to_owned(), ..good.clone() },
        Spec { image: "../default".to_owned(), ..good.clone() },
        Spec { memory_mb: 1, ..good.clone() },
        Spec { cpu_millis: 0, ..good.clone() },
        mount("/"),
        mount("/proc"),
        mount("relative"),
        mount("/root/../etc"),
    ];
    for spec in wrong {
        let error = platform.ensure(&spec).await.expect_err("it cannot be");
        assert!(matches!(error, PlatformError::Impossible(_)), "{spec:?}: {error:?}");
    }
    assert_eq!(platform.list().await, Ok(Vec::new()), "nothing is made of it");
    assert!(platform.images().await.expect("images").iter().any(|image| image.is_default));
    // The phase is the wrong one, not the container.
    platform.ensure(&good).await.expect("made");
    for error in [platform.exec(good.id, shell("true")).await.map(drop), platform.pause(good.id).await] {
        assert!(matches!(error, Err(PlatformError::WrongPhase(_))), "{error:?}");
    }
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn mounted_directories_outlive_a_stop(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("volumes");
    started(&platform, &spec).await;
    said(&platform, spec.id, "echo kept > $HOME/file; echo lost > ${TMPDIR:-/tmp}/file").await;
    platform.stop(spec.id, GRACE).await.expect("stopped");
    started(&platform, &spec).await;
    let script = "cat $HOME/file; ls ${TMPDIR:-/tmp}";
    assert_eq!(said(&platform, spec.id, script).await, "kept\n");
    platform.delete(spec.id).await.expect("deleted");
    started(&platform, &spec).await;
    assert_eq!(said(&platform, spec.id, "ls $HOME").await, "", "they do not outlive a delete");
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn the_end_of_the_main_process_is_told(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("ending");
    started(&platform, &spec).await;
    let mut changes = platform.watch();
    // It may end before it could say that it began.
    let _killing = platform.exec(spec.id, shell(machine.kill_main())).await;
    assert_eq!(within("a change", changes.recv()).await.expect("told"), spec.id);
    let ended = platform.observe(spec.id).await.expect("observed").expect("there");
    assert!(matches!(&ended.phase, Phase::Failed(why) if why.contains("main process")), "{ended:?}");
    assert_eq!(ended.address, None);
    nothing_is_left(machine, spec.id).await;
    page(&started(&platform, &spec).await).await;
    within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
    assert_eq!(within("a change", changes.recv()).await.expect("told"), spec.id);
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn a_new_instance_takes_over(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (runs, stays) = (spec("runs"), spec("stays"));
    let observed = started(&platform, &runs).await;
    platform.ensure(&stays).await.expect("made");
    let mut open = session(&platform, runs.id, shell("echo here; exec sleep 1000")).await;
    assert_eq!(open.output.recv().await, Some(Output::Stdout("here\n".into())));
    // As after a kill: nobody says goodbye.
    drop(platform);
    let platform = machine.open().await;
    assert_eq!(platform.list().await.expect("a list").len(), 2);
    assert_eq!(platform.observe(runs.id).await.expect("observed"), Some(observed.clone()));
    assert_eq!(phase(&platform, stays.id).await, Phase::Stopped);
    assert!(page(&observed).await.contains("runs"));
    assert_eq!(said(&platform, runs.id, "echo $EDD_CONTAINER_ID").await, format!("{}\n", runs.id));
    assert_eq!(platform.start(runs.id).await.expect("runs"), observed);
    let mut changes = platform.watch();
    // It may end before it could say that it began.
    let _killing = platform.exec(runs.id, shell(machine.kill_main())).await;
    assert_eq!(within("a change", changes.recv()).await.expect("told"), runs.id);
    started(&platform, &runs).await;
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn a_deleted_container_leaves_nothing(machine: &dyn Machine) {
    let platform = machine.open().await;
    let (gone, other) = (spec("gone"), spec("other"));
    let observed = started(&platform, &other).await;
    started(&platform, &gone).await;
    assert!(!machine.leftovers(gone.id).is_empty(), "a running container is not seen, so nothing would be");
    said(&platform, gone.id, "nohup setsid sleep 1000 > /dev/null 2>&1 & mkdir -p $HOME/a/b; echo x > $HOME/a/b/c")
        .await;
    for _ in 0..2 {
        within("a delete", platform.delete(gone.id)).await.expect("deleted");
        nothing_is_left(machine, gone.id).await;
        assert_eq!(platform.observe(gone.id).await.expect("observed"), None);
    }
    assert_eq!(platform.list().await.expect("a list"), std::slice::from_ref(&observed));
    page(&observed).await;
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn a_shutdown_stops_everything(machine: &dyn Machine) {
    let platform = machine.open().await;
    let specs = [spec("one"), spec("two"), spec("three")];
    for spec in &specs {
        started(&platform, spec).await;
    }
    within("a shutdown", platform.shutdown(GRACE)).await;
    if machine.outlives_edd() {
        for spec in &specs {
            assert_eq!(phase(&platform, spec.id).await, Phase::Running);
        }
        return end(machine, platform).await;
    }
    for spec in &specs {
        nothing_is_left(machine, spec.id).await;
        platform.start(spec.id).await.expect_err("it is too late");
    }
    drop(platform);
    let platform = machine.open().await;
    for spec in &specs {
        assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    }
    end(machine, platform).await;
}
