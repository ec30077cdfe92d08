//! Walks at random: requests, a platform that fails by chance and does things by itself, processes that are killed, time
//! that goes by. When failures stop, everything is as it is wanted, and whoever followed the events knows all of it.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::ContainerId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::fixture::{ANN, BOB, Fixture};
use super::snapshot::assert_copied;
use crate::compute::model::{Status, Wanted};
use crate::compute::platform::Phase;
use crate::compute::store::containers;
use crate::scratch::on_each_database;

on_each_database![walks_end_where_everything_is_as_it_is_wanted];

const STEPS: usize = 60;

async fn walks_end_where_everything_is_as_it_is_wanted(kind: Kind) {
    let seeds = match kind {
        Kind::Sqlite => 0..12,
        Kind::Postgres => 100..104,
    };
    for seed in seeds {
        walk(kind, seed).await;
    }
}

async fn walk(kind: Kind, seed: u64) {
    let fixture = Fixture::new(kind).await;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut ids, mut strangers) = (Vec::<ContainerId>::new(), 0);
    fixture.platform.chaos(Some(seed));
    let reconciler = fixture.reconciler();
    for _ in 0..STEPS {
        if ids.len() < 2 || random.random_bool(0.15) {
            ids.push(fixture.create_as(ANN, json!({"name": "x", "ingress_rules": [{"port": 8000}]})).await);
        }
        let id = *ids.choose(&mut random).expect("some");
        match random.random_range(0..14) {
            0 => drop(fixture.act(id, "start").await),
            1 => drop(fixture.act(id, "stop").await),
            2 => drop(fixture.act(id, "hibernate").await),
            3 => drop(fixture.act(id, "wake").await),
            4 => drop(fixture.delete(&format!("/compute/containers/{id}")).await),
            5 => drop(
                fixture
                    .put(&format!("/compute/containers/{id}/https"), json!({"https_enabled": random.random_bool(0.5)}))
                    .await,
            ),
            6 => fixture.platform.happen(
                id,
                [None, Some(Phase::Failed("it ended".to_owned())), Some(Phase::Stopped)]
                    .choose(&mut random)
                    .cloned()
                    .expect("one"),
            ),
            7 => {
                strangers += 1;
                let stranger = format!("stranger{strangers:02}").parse().expect("an id");
                fixture.platform.happen(stranger, Some(Phase::Running));
            }
            8 => drop(reconciler.repair().await),
            9 => reconciler.upkeep().await.expect("upkeep"),
            10 => fixture.clock.advance(Duration::from_secs(random.random_range(0..1200))),
            11 => {
                let reconciler = fixture.reconciler();
                let mut visit = Box::pin(reconciler.visit(id));
                // Killed.
                super::kills::poll(&mut visit, random.random_range(1..40)).await;
            }
            12 => drop(fixture.call(BOB, http::Method::POST, &format!("/compute/containers/{id}/stop")).send().await),
            _ => drop(reconciler.round().await.expect("a round")),
        }
    }
    fixture.platform.chaos(None);
    // All that was missed is found, and all pauses are over.
    for _ in 0..3 {
        reconciler.repair().await.expect("a repair");
        fixture.later(Duration::from_secs(3600)).await;
    }
    assert_settled(&fixture, seed).await;
    assert_copied(&fixture, &fixture.messages().await).await;
}

async fn assert_settled(fixture: &Fixture, seed: u64) {
    let live = containers::page(fixture.database.reader(), None, 1000, false).await.expect("containers");
    let mut ids: Vec<_> = live.iter().map(|container| container.id).collect();
    for container in &live {
        let phase = fixture.platform.phase(container.id);
        let (status, is_so) = match container.wanted {
            Wanted::Running => (Status::Running, phase == Some(Phase::Running)),
            Wanted::Stopped => (Status::Stopped, matches!(phase, None | Some(Phase::Stopped | Phase::Failed(_)))),
            Wanted::Hibernated | Wanted::Idle => (Status::Hibernated, !matches!(phase, Some(Phase::Running))),
        };
        assert!(is_so, "seed {seed}: {container:?} is {phase:?}");
        assert_eq!(container.status, status, "seed {seed}: {container:?} is {phase:?}");
        assert_eq!(container.address.is_some(), matches!(phase, Some(Phase::Running | Phase::Paused)), "seed {seed}");
        assert_eq!(container.due_at, None, "seed {seed}: {container:?} is {phase:?}");
    }
    ids.sort_unstable();
    let unknown: Vec<_> = fixture.platform.all().into_iter().filter(|id| !ids.contains(id)).collect();
    assert_eq!(unknown, [], "seed {seed}: the platform has nothing else");
}
