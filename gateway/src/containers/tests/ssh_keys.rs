use std::collections::HashSet;

use super::scene::{ANN, BEN, Scene, fingerprint, key, user};
use crate::containers::{KeyChange, Origin};

fn gone(id: i64, version: i64) -> KeyChange {
    KeyChange::Gone { id, version }
}

/// Under which numbers whose key it is.
fn held(scene: &Scene, number: u8) -> Vec<(i64, String)> {
    let snapshot = scene.router.snapshot();
    let holders = snapshot.ssh_keys.holders(&fingerprint(number)).iter();
    holders.map(|holder| (holder.key_id, holder.owner.to_string())).collect()
}

fn of(ids: &[i64], owner: &str) -> Vec<(i64, String)> {
    ids.iter().map(|id| (*id, owner.to_owned())).collect()
}

#[tokio::test]
async fn versions_decide_whatever_comes_first() {
    let events = [key(7, 1, ANN, fingerprint(1)), gone(7, 2)];
    for order in [[0, 1], [1, 0]] {
        let scene = Scene::new();
        for index in order {
            scene.hear_key(events[index]);
        }
        assert_eq!(held(&scene, 1), [], "{order:?}");
    }
    let scene = Scene::new();
    assert_eq!(scene.hear_key(events[0]), 1);
    assert_eq!(scene.hear_key(key(7, 1, ANN, fingerprint(2))), 0, "an event of a known version is no news");
    let corrected = scene.containers.ssh_keys().apply([key(7, 1, ANN, fingerprint(2))], Origin::Database);
    assert_eq!((corrected, held(&scene, 1), held(&scene, 2)), (1, of(&[], ANN), of(&[7], ANN)));
    let again = scene.containers.ssh_keys().apply([key(7, 1, ANN, fingerprint(2))], Origin::Database);
    assert_eq!((again, scene.router.snapshot().ssh_keys.len()), (0, 1));
}

#[tokio::test]
async fn with_a_user_go_their_keys_for_good() {
    let scene = Scene::new();
    scene.hear_key(key(7, 1, ANN, fingerprint(1)));
    scene.hear_key(key(8, 1, BEN, fingerprint(1)));
    scene.containers.delete_users([user(ANN)]);
    assert_eq!(held(&scene, 1), of(&[8], BEN));
    assert_eq!(scene.hear_key(key(9, 1, ANN, fingerprint(1))), 0);
}

#[tokio::test]
async fn what_the_database_lacks_goes_unless_it_lags_behind_the_stream() {
    let scene = Scene::new();
    for (id, seq) in [(1, 5), (2, 6), (3, 7)] {
        scene.containers.ssh_keys().apply([key(id, 1, ANN, fingerprint(1))], Origin::Event(seq));
    }
    let present = HashSet::from([1]);
    assert_eq!(scene.containers.ssh_keys().retain(&present, 6), 1, "the second is gone");
    assert_eq!(held(&scene, 1), of(&[1, 3], ANN));
    scene.containers.ssh_keys().settle(7);
    assert_eq!(scene.containers.ssh_keys().retain(&present, 7), 1, "and so is the third");
    assert_eq!(held(&scene, 1), of(&[1], ANN));
}
