//! No room left.

use std::time::Duration;

use bytes::Bytes;
use edd_events::database::Kind;
use edd_servers::disk::Disk;

use super::fixture::{ANN, Fixture, actor, cause, target};
use crate::scratch::{Scratch, on_each_database};
use crate::sfs::config::SfsConfig;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Replace, Target, Visibility};
use crate::sfs::storage::BlobStore;

on_each_database![what_does_not_fit_on_the_disk_leaves_nothing];

async fn what_does_not_fit_on_the_disk_leaves_nothing(kind: Kind) {
    let Some(disk) = Disk::mount("uploads to a full disk", 8) else { return };
    let store = BlobStore::local(&disk.path().join("blobs")).expect("a store");
    let fixture = Fixture::on(Scratch::new(kind), store, SfsConfig::default()).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.file("docs", "old", b"old").await;
    let refuse = async |bytes: usize, is_full: bool| {
        if is_full {
            disk.fill();
        }
        let target = Target { replace: Replace::Always, ..target("docs", "old") };
        let mut incoming = fixture.service.begin(&actor(ANN), target, &cause()).await.expect("begun");
        let mut written = Ok(());
        for _ in 0..bytes.div_ceil(100_000) {
            written = incoming.write(Bytes::from(vec![1; bytes.min(100_000)])).await;
            if written.is_err() {
                break;
            }
        }
        let refused = match written {
            Err(error) => {
                incoming.abort().await;
                error
            }
            Ok(()) => incoming.finish(None).await.expect_err("no room"),
        };
        assert!(matches!(refused, SfsError::NoRoom), "{refused}");
        if is_full {
            disk.free();
        }
    };
    refuse(10, true).await;
    refuse(5_000_000, true).await;
    refuse(20_000_000, false).await;
    assert_eq!(fixture.read("docs", "old").await, b"old");
    assert_eq!(fixture.used("docs").await, (3, 1, 0));
    fixture.later(Duration::from_secs(900)).await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.file("docs", "new", &[1; 1_000_000]).await;
    assert_eq!(fixture.check(Default::default()).await, []);
}
