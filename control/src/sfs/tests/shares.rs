//! Share links.

use std::net::IpAddr;
use std::time::Duration;

use edd_events::database::Kind;
use futures_util::future::join_all;

use super::fixture::{ANN, BOB, Fixture, ROOT, actor, name, path};
use crate::entropy::{Entropy, Secret};
use crate::limiter::Network;
use crate::password::{Password, PasswordConfig};
use crate::scratch::on_each_database;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::{NewShare, Visibility};
use crate::sfs::service::{Open, ShareError, Shares};

on_each_database![
    a_link_opens_what_it_leads_to_and_nothing_else,
    a_link_ends_in_every_way,
    a_count_is_never_exceeded,
    a_password_is_asked_for_and_cannot_be_guessed,
    only_owners_make_links,
];

async fn fixture(kind: Kind) -> (Fixture, Shares) {
    let quotas = Quotas { shares: 3, ..Quotas::default() };
    let fixture = Fixture::with(kind, SfsConfig { quotas, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    for (at, bytes) in [("a.txt", b"1"), ("dir/b.txt", b"2"), ("dir/sub/c.txt", b"3"), ("dirt", b"4")] {
        fixture.file("docs", at, bytes).await;
    }
    let cheap = PasswordConfig { memory_kib: 64, passes: 1, ..PasswordConfig::default() };
    let shares = Shares::new(&fixture.service, &cheap, Entropy::seeded(1)).expect("shares");
    (fixture, shares)
}

fn new(at: Option<&str>) -> NewShare {
    let (namespace, path) = (name("docs"), at.map(path));
    NewShare { namespace, path, password: None, expires_in_seconds: None, downloads: None }
}

fn network(last: u8) -> Network {
    IpAddr::from([192, 0, 2, last]).into()
}

async fn open(shares: &Shares, token: &Secret) -> Result<Open, ShareError> {
    shares.open(token, None, network(1)).await
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(outcome: Result<T, ShareError>) {
    assert!(matches!(outcome, Err(ShareError::NotFound)), "{outcome:?}");
}

async fn a_link_opens_what_it_leads_to_and_nothing_else(kind: Kind) {
    let (_fixture, shares) = fixture(kind).await;
    let (_, file) = shares.create(&actor(ANN), new(Some("a.txt"))).await.expect("a link");
    let (_, folder) = shares.create(&actor(ANN), new(Some("dir"))).await.expect("a link");
    let (_, all) = shares.create(&actor(ANN), new(None)).await.expect("a link");
    let opened = open(&shares, &file).await.expect("a good link");
    assert_eq!(shares.file(&opened, None).await.expect("the file").entry.path, path("a.txt"));
    not_found(shares.file(&opened, Some("b")).await);

    let opened = open(&shares, &folder).await.expect("a good link");
    let listed = shares.list_in(&opened, None, None, 10).await.expect("a list");
    let shown: Vec<_> = listed.iter().map(|entry| opened.below(&entry.path)).collect();
    assert_eq!(shown, ["b.txt", "sub"]);
    assert_eq!(shares.file(&opened, Some("sub/c.txt")).await.expect("the file").entry.path, path("dir/sub/c.txt"));
    for outside in ["../a.txt", "..", "/a.txt", "", "sub/../../a.txt", ".", "t"] {
        not_found(shares.file(&opened, Some(outside)).await);
    }
    let opened = open(&shares, &all).await.expect("a good link");
    assert!(shares.entry(&opened, None).await.expect("all of it").is_none());
    assert_eq!(shares.file(&opened, Some("dirt")).await.expect("the file").entry.path, path("dirt"));
    not_found(open(&shares, &Secret::of("nonsense")).await);
    let fourth = shares.create(&actor(ANN), new(None)).await.map(drop);
    assert!(matches!(fourth, Err(ShareError::Sfs(SfsError::Count { most: 3, .. }))), "{fourth:?}");
}

async fn a_link_ends_in_every_way(kind: Kind) {
    let (fixture, shares) = fixture(kind).await;
    let timed = NewShare { expires_in_seconds: Some(60), ..new(Some("a.txt")) };
    let (_, timed) = shares.create(&actor(ANN), timed).await.expect("a link");
    let (revoked, token) = shares.create(&actor(ANN), new(Some("a.txt"))).await.expect("a link");
    let (_, last) = shares.create(&actor(ANN), new(Some("a.txt"))).await.expect("a link");
    for token in [&timed, &token, &last] {
        open(&shares, token).await.expect("a good link");
    }
    let foreign = shares.revoke(&actor(BOB), revoked.number).await;
    assert!(matches!(foreign, Err(ShareError::Sfs(SfsError::NotFound(_)))), "{foreign:?}");
    shares.revoke(&actor(ANN), revoked.number).await.expect("revoked");
    not_found(open(&shares, &token).await);
    fixture.clock.advance(Duration::from_secs(60));
    not_found(open(&shares, &timed).await);
    assert_eq!(shares.list(&actor(ANN), 0, 10).await.expect("links").len(), 2, "what is over is shown for a while");
    fixture.later(Duration::from_secs(40 * 86_400)).await;
    assert_eq!(shares.list(&actor(ANN), 0, 10).await.expect("links").len(), 1);
    // What it leads to is gone, or somebody else's.
    let opened = open(&shares, &last).await.expect("a good link");
    fixture.delete(ANN, "docs", "a.txt", false).await.expect("deleted");
    not_found(shares.file(&opened, None).await);
    fixture.service.delete_namespace(&actor(ANN), &name("docs"), &super::fixture::cause()).await.expect("deleted");
    not_found(open(&shares, &last).await);
    fixture.much_later().await;
    assert_eq!(fixture.count("shares").await, 0);
}

async fn a_count_is_never_exceeded(kind: Kind) {
    let (_fixture, shares) = fixture(kind).await;
    let counted = NewShare { downloads: Some(5), ..new(Some("a.txt")) };
    let (_, token) = shares.create(&actor(ANN), counted).await.expect("a link");
    let opened = open(&shares, &token).await.expect("a good link");
    let outcomes = join_all((0..8).map(|_| shares.count(&opened))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    not_found(open(&shares, &token).await);
    let listed = shares.list(&actor(ANN), 0, 10).await.expect("links");
    assert_eq!((listed[0].0.downloads, listed[0].0.downloads_left), (5, Some(0)));
}

async fn a_password_is_asked_for_and_cannot_be_guessed(kind: Kind) {
    let (fixture, shares) = fixture(kind).await;
    let password = |text: &str| Password::attempt(text.to_owned());
    let locked = NewShare { password: Some(password("sesame")), ..new(Some("a.txt")) };
    let (_, token) = shares.create(&actor(ANN), locked).await.expect("a link");
    let with = |text: &str, last| {
        let (shares, token, text) = (shares.clone(), token.clone(), password(text));
        async move { shares.open(&token, Some(&text), network(last)).await.map(drop) }
    };
    assert!(matches!(open(&shares, &token).await, Err(ShareError::Password)));
    for _ in 0..10 {
        assert!(matches!(with("guess", 1).await, Err(ShareError::Password)));
    }
    assert!(matches!(with("sesame", 1).await, Err(ShareError::TooOften(_))), "also the right one");
    // A film is fetched in many requests.
    for _ in 0..50 {
        with("sesame", 2).await.expect("the password");
    }
    fixture.clock.advance(Duration::from_secs(901));
    with("sesame", 1).await.expect("after a while");
    assert!(matches!(with("sesame2", 2).await, Err(ShareError::Password)), "who knew it once is nobody else");
}

async fn only_owners_make_links(kind: Kind) {
    let (fixture, shares) = fixture(kind).await;
    fixture.namespace(BOB, "bobs", Visibility::Public).await;
    let of_bobs = || NewShare { namespace: name("bobs"), ..new(None) };
    for (who, wanted) in [(ANN, of_bobs()), (ROOT, of_bobs())] {
        let refused = shares.create(&actor(who), wanted).await.map(drop);
        assert!(matches!(refused, Err(ShareError::Sfs(SfsError::NotYours))), "{refused:?}");
    }
    let unseen = shares.create(&actor(BOB), new(None)).await.map(drop);
    assert!(matches!(unseen, Err(ShareError::Sfs(SfsError::NotFound(_)))), "{unseen:?}");
    let nothing = shares.create(&actor(ANN), new(Some("nowhere"))).await.map(drop);
    assert!(matches!(nothing, Err(ShareError::Sfs(SfsError::NotFound(_)))), "{nothing:?}");
    assert_eq!(shares.list(&actor(ANN), 0, 10).await.expect("links").len(), 0);
}
