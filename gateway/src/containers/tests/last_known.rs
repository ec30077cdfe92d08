use super::scene::{ANN, BEN, NOW, Scene, fingerprint, id, key, record, user};
use crate::containers::{Change, KeyChange, LastKnown, Origin, Record};
use crate::health::{CheckState, Reporter};
use crate::live::{SshAccess, Status};
use crate::table::ports::{PortProtocol, PortRule};

/// A scene that knows something of everything.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.hear(Record { https_enabled: false, ..record(1, 7, Status::Running, 80) });
    scene.hear(Record { address: None, ..record(2, 1, Status::Starting, 80) });
    let ssh = SshAccess { port: 22.try_into().ok(), host_key: Some(fingerprint(5)), only_keys: Some([7].into()) };
    scene.hear(Record { redirect_to_https: true, ssh: Some(ssh), ..record(3, 2, Status::Hibernated, 80) });
    scene.hear_key(key(7, 1, ANN, fingerprint(1)));
    scene.hear_key(KeyChange::Gone { id: 8, version: 2 });
    scene.containers.ssh_keys().set_complete();
    scene.containers.apply([Change::Gone { id: id(4), version: 9 }], Origin::Event(1));
    scene.containers.delete_users([user(BEN)]);
    let rule = PortRule { container: id(1), port: 8000, target_port: 22, protocol: PortProtocol::Sniff };
    scene.containers.set_ports([(8000, id(1), Some(rule))]);
    scene.containers.freshness().known_as_of(NOW);
    scene
}

fn records(scene: &Scene) -> Vec<Record> {
    let snapshot = scene.router.snapshot();
    let mut records: Vec<_> = snapshot.containers.iter().filter_map(|(_, live)| Record::of(live)).collect();
    records.sort_by_key(|record| record.id);
    records
}

#[tokio::test]
async fn what_was_known_serves_after_a_restart_and_says_how_old_it_is() {
    let (folder, before, after) = (tempfile::tempdir().unwrap(), scene(), Scene::new());
    let file = LastKnown::new(folder.path());
    assert!(!file.restore(&after.containers).await.unwrap(), "there is none yet");
    file.save(&before.containers).await.unwrap();
    assert!(file.restore(&after.containers).await.unwrap());
    assert_eq!(records(&after), records(&before));
    assert!(after.router.snapshot().containers.is_complete());
    let (_, port) = after.router.snapshot().ports.rules(8000).next().cloned().unwrap();
    assert_eq!(port.pick(0, 0).unwrap().to_string(), "127.0.0.1:22");
    // What is gone stays gone.
    after.hear(record(4, 8, Status::Running, 80));
    after.hear(Record { owner: user(BEN), ..record(5, 1, Status::Running, 80) });
    assert_eq!((after.status(4), after.status(5)), (None, None));
    after.hear_key(key(8, 1, ANN, fingerprint(2)));
    after.hear_key(key(9, 1, BEN, fingerprint(3)));
    let keys = |scene: &Scene| {
        let snapshot = scene.router.snapshot();
        let held = [1, 2, 3].map(|number| snapshot.ssh_keys.holders(&fingerprint(number)).len());
        (held, snapshot.ssh_keys.is_complete())
    };
    assert_eq!((keys(&before), keys(&after)), (([1, 0, 0], true), ([1, 0, 0], true)));
    let check = |scene: &Scene| scene.containers.checks().remove(0);
    assert_eq!(check(&after).state, CheckState::Ok);
    after.clock.advance(std::time::Duration::from_secs(90));
    let stale = check(&after);
    assert_eq!(stale.state, CheckState::Degraded);
    assert!(
        stale.detail.starts_with("3 containers, 1 ports, as compute told by 2024-01-22T11:46:40.000Z, 90 s ago"),
        "{}",
        stale.detail
    );
}

#[tokio::test]
async fn half_a_file_is_no_file() {
    let (folder, after) = (tempfile::tempdir().unwrap(), Scene::new());
    let file = LastKnown::new(folder.path());
    file.save(&scene().containers).await.unwrap();
    let path = folder.path().join("containers.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for (broken, why) in [
        (lines[..lines.len() - 1].join("\n"), "ends too early"),
        ([&lines[..3], &lines[4..]].concat().join("\n"), "ends too early"),
        (whole.replace("\"format\":2", "\"format\":1"), "another release"),
        (String::new(), "another release"),
        (whole[..whole.len() / 2].to_owned(), ""),
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = file.restore(&after.containers).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(after.router.snapshot().containers.is_empty() && !after.router.snapshot().containers.is_complete());
    }
}
