use std::sync::Arc;

use edd_events::clock::ManualClock;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use super::*;
use crate::containers::Record;
use crate::containers::tests::scene::{ANN, BEN, Scene, fingerprint, id, key, record, user};
use crate::live::SshAccess;
use crate::ssh::penalties::Config;

const PEER: &str = "192.0.2.7";

/// Containers and keys, and who may log in.
struct Plane {
    scene: Scene,
    directory: Directory,
    anns: PublicKey,
    bens: PublicKey,
}

/// A way in, or why there is none now.
fn up(target: Target) -> Result<Target, &'static str> {
    if let Target::Down(refusal) = target { Err(refusal.reason) } else { Ok(target) }
}

fn new_key() -> PublicKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap().public_key().clone()
}

/// A container with an SSH server that takes any of its owner's keys.
fn with_sshd(number: u32, version: i64, status: Status) -> Record {
    let ssh = SshAccess { port: 22.try_into().ok(), host_key: Some(fingerprint(9)), only_keys: None };
    Record { ssh: Some(ssh), ..record(number, version, status, 80) }
}

impl Plane {
    /// Ann has the first container and the key 1, Ben the second and the key 2.
    fn new() -> Self {
        let scene = Scene::new();
        let penalties = Penalties::new(Config::default(), Arc::new(ManualClock::at(0)));
        let directory = Directory::new(scene.router.clone(), penalties);
        let (anns, bens) = (new_key(), new_key());
        scene.hear_key(key(1, 1, ANN, Fingerprint::of(&anns)));
        scene.hear_key(key(2, 1, BEN, Fingerprint::of(&bens)));
        scene.hear(with_sshd(1, 1, Status::Running));
        scene.hear(Record { owner: user(BEN), ..with_sshd(2, 1, Status::Running) });
        scene.containers.set_complete();
        scene.containers.ssh_keys().set_complete();
        Self { scene, directory, anns, bens }
    }

    fn admit(&self, username: &str, key: &PublicKey) -> Result<Admission, &'static str> {
        let attempt = Attempt { username, key, peer: PEER.parse().unwrap() };
        let admitted = self.directory.admit(&attempt);
        assert_eq!(self.directory.offer(&attempt).is_ok(), admitted.is_ok(), "both mean the same");
        admitted.map_err(|refusal| refusal.reason)
    }

    fn refusal(&self, username: &str, key: &PublicKey) -> Option<&'static str> {
        self.admit(username, key).err()
    }

    /// How Ann gets into her first container.
    fn target(&self) -> Result<Target, &'static str> {
        let admission = self.admit("c000000001", &self.anns)?;
        up(self.directory.entrance(&admission).map_err(|refusal| refusal.reason)?.target)
    }

    fn jump(&self, host: &str) -> Result<(ContainerId, Target), &'static str> {
        let admission = self.admit("jump", &self.anns)?;
        let entrance = self.directory.jump(&admission, host).map_err(|refusal| refusal.reason)?;
        Ok((entrance.container, up(entrance.target)?))
    }
}

#[tokio::test]
async fn the_owner_gets_in_as_any_user_and_nobody_else_does() {
    let plane = Plane::new();
    let admission = plane.admit("c000000001", &plane.anns).unwrap();
    assert_eq!((admission.owner, admission.key_id), (user(ANN), 1));
    assert_eq!(admission.fingerprint, Fingerprint::of(&plane.anns));
    assert_eq!(admission.way, Way::Container { id: id(1), user: "root".to_owned() });
    let admission = plane.admit("www-data.c000000001", &plane.anns).unwrap();
    assert_eq!(admission.way, Way::Container { id: id(1), user: "www-data".to_owned() });
    assert_eq!(plane.admit("jump", &plane.anns).unwrap().way, Way::Jump);
    assert_eq!(plane.refusal("c000000001", &plane.bens), Some("not_the_owner"));
    assert_eq!(plane.refusal("c000000001", &new_key()), Some("unknown_key"));
    assert_eq!(plane.refusal("jump", &new_key()), Some("unknown_key"));
    assert_eq!(plane.refusal("c000000003", &plane.anns), Some("unknown_container"));
    assert_eq!(plane.refusal("root", &plane.anns), Some("no_such_login"));
}

#[tokio::test]
async fn a_key_of_several_users_opens_what_each_of_them_has() {
    let plane = Plane::new();
    plane.scene.hear_key(key(3, 1, BEN, Fingerprint::of(&plane.anns)));
    let admitted = |name| plane.admit(name, &plane.anns).map(|admission| (admission.owner, admission.key_id));
    assert_eq!(admitted("c000000001"), Ok((user(ANN), 1)));
    assert_eq!(admitted("c000000002"), Ok((user(BEN), 3)));
    assert_eq!(plane.jump("c000000002").map(|(id, _)| id), Ok(id(2)));
}

#[tokio::test]
async fn a_container_may_take_chosen_keys_alone_or_none() {
    let plane = Plane::new();
    let restricted = |version, keys: &[i64]| {
        let ssh = SshAccess { only_keys: Some(keys.into()), ..SshAccess::default() };
        plane.scene.hear(Record { ssh: Some(ssh), ..record(1, version, Status::Running, 80) });
        plane.refusal("c000000001", &plane.anns)
    };
    assert_eq!(restricted(2, &[1]), None);
    assert_eq!(restricted(3, &[2]), Some("key_not_chosen"));
    assert_eq!(restricted(4, &[]), Some("key_not_chosen"));
    // The same key under another number, which is chosen.
    plane.scene.hear_key(key(5, 1, ANN, Fingerprint::of(&plane.anns)));
    assert_eq!(restricted(5, &[5]), None);
    plane.scene.hear(record(1, 6, Status::Running, 80));
    assert_eq!(plane.refusal("c000000001", &plane.anns), Some("ssh_off"));
}

#[tokio::test]
async fn before_all_is_known_nobody_is_told_that_something_does_not_exist() {
    let plane = Plane::new();
    plane.scene.router.update(|snapshot| *snapshot = Snapshot::default());
    assert_eq!(plane.refusal("c000000001", &plane.anns), Some("not_yet_known"));
    assert_eq!(plane.refusal("jump", &plane.anns), Some("not_yet_known"));
}

#[tokio::test]
async fn the_way_in_is_that_of_the_moment() {
    let plane = Plane::new();
    let sshd = |port: u16| Target::Sshd {
        address: crate::route::Authority::of_ip([127, 0, 0, 1].into(), port),
        host_key_fingerprint: fingerprint(9).to_string(),
    };
    assert_eq!(plane.target(), Ok(sshd(22)));
    for (version, status, expected) in [
        (2, Status::Hibernated, Ok(Target::Asleep)),
        (3, Status::Starting, Ok(Target::Asleep)),
        (4, Status::Stopped, Err("container_stopped")),
        (5, Status::Failed, Err("container_failed")),
        (6, Status::Running, Ok(sshd(22))),
    ] {
        plane.scene.hear(with_sshd(1, version, status));
        assert_eq!(plane.target(), expected, "{status:?}");
    }
    let ssh = |version, access: SshAccess| {
        plane.scene.hear(Record { ssh: Some(access), ..record(1, version, Status::Running, 80) });
        plane.target()
    };
    assert_eq!(ssh(7, SshAccess::default()), Ok(Target::Exec));
    assert_eq!(ssh(8, SshAccess { port: 22.try_into().ok(), ..SshAccess::default() }), Err("no_host_key"));
    plane.scene.hear(Record { address: None, ..with_sshd(1, 9, Status::Running) });
    assert_eq!(plane.target(), Ok(Target::Asleep), "where it runs is about to be told");
}

#[tokio::test]
async fn being_in_is_a_visit() {
    let plane = Plane::new();
    let admission = plane.admit("c000000001", &plane.anns).unwrap();
    let entrance = plane.directory.entrance(&admission).unwrap();
    let live = plane.scene.live(1).unwrap();
    let life = live.backend().unwrap().life();
    assert!(life.is_in_use());
    assert_eq!(entrance.retired, *life.retired());
    drop(entrance);
    assert!(!life.is_in_use());
}

#[tokio::test]
async fn a_jump_leads_to_ones_own_ssh_servers_and_nowhere_else() {
    let plane = Plane::new();
    let own = plane.jump("c000000001").unwrap();
    assert_eq!(own.0, id(1));
    for host in ["c000000001.compute.cloud.localhost", "C000000001.compute.cloud.localhost."] {
        assert_eq!(plane.jump(host).as_ref(), Ok(&own), "{host}");
    }
    for host in ["c000000002", "c000000003", "localhost", "127.0.0.1", "", "c000000001.example.com", "jump"] {
        assert_eq!(plane.jump(host), Err("unknown_container"), "{host}");
    }
    plane.scene.hear(Record { ssh: Some(SshAccess::default()), ..record(1, 2, Status::Running, 80) });
    assert_eq!(plane.jump("c000000001"), Err("no_sshd"));
    plane.scene.hear(with_sshd(1, 3, Status::Stopped));
    assert_eq!(plane.jump("c000000001"), Err("container_stopped"));
    plane.scene.hear(record(1, 4, Status::Running, 80));
    assert_eq!(plane.jump("c000000001"), Err("ssh_off"));
    let admission = plane.admit("jump", &plane.anns).unwrap();
    assert_eq!(plane.directory.entrance(&admission).unwrap_err().reason, "jump_only");
}
