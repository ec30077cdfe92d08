//! What a container may use.

use super::*;

pub(in crate::compute::platform) async fn a_paused_container_does_nothing(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().can_pause {
        println!("NOT RUN: nothing can be paused here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = spec("paused");
    let running = started(&platform, &spec).await;
    for _ in 0..2 {
        platform.pause(spec.id).await.expect("paused");
        let paused = platform.observe(spec.id).await.expect("observed").expect("there");
        assert_eq!(paused, Observed { phase: Phase::Paused, ..running.clone() });
    }
    let mut waiting = tokio::spawn({
        let running = running.clone();
        async move { page(&running).await }
    });
    tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.expect_err("it answers");
    let refused = platform.exec(spec.id, shell("true")).await.map(drop);
    assert!(matches!(refused, Err(PlatformError::WrongPhase(_))), "{refused:?}");
    assert_eq!(platform.start(spec.id).await.expect("resumed"), running);
    assert!(waiting.await.expect("an answer").contains("paused"));
    platform.pause(spec.id).await.expect("paused");
    within("a stop", platform.stop(spec.id, GRACE)).await.expect("stopped");
    assert_eq!(phase(&platform, spec.id).await, Phase::Stopped);
    started(&platform, &spec).await;
    platform.pause(spec.id).await.expect("paused");
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn memory_is_limited(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().limits_memory {
        println!("NOT RUN: memory has no limit here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = spec("memory");
    started(&platform, &spec).await;
    // Without a line break tail(1) keeps all of it.
    let mut hog = session(&platform, spec.id, shell("head -c 400m /dev/zero | tail -n 1 | wc -c")).await;
    let mut counted = String::new();
    while let Some(output) = within("the end of a hog", hog.output.recv()).await {
        if let Output::Stdout(bytes) = output {
            counted.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    assert!(!counted.contains("419430400"), "400 MB found room in 96");
    // Whoever had to die: if it was the main process, its owner is told why.
    if let Phase::Failed(why) = phase(&platform, spec.id).await {
        assert!(why.contains("memory"), "{why}");
    }
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn processors_are_limited(machine: &dyn Machine) {
    let platform = machine.open().await;
    if !platform.capabilities().limits_cpu {
        println!("NOT RUN: processors have no limit here: {}", platform.capabilities().isolation);
        return end(machine, platform).await;
    }
    let spec = Spec { cpu_millis: 200, ..spec("processors") };
    started(&platform, &spec).await;
    // The second line of times(1) is of what the shell started: user and system time, as in 0m0.210s.
    let script = "timeout 1 sh -c 'while :; do :; done' & timeout 1 sh -c 'while :; do :; done'; wait; times";
    let times = said(&platform, spec.id, script).await;
    let spent = |time: &str| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').expect("minutes and seconds");
        minutes.parse::<f64>().expect("minutes") * 60.0 + seconds.parse::<f64>().expect("seconds")
    };
    let seconds: f64 = times.lines().nth(1).expect("two lines").split(' ').map(spent).sum();
    assert!((0.01..0.6).contains(&seconds), "{seconds} s of a processor in about one, with a limit of 0.2: {times}");
    end(machine, platform).await;
}
