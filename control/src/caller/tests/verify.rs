use std::time::Duration;

use edd_events::database::Database;
use edd_proto::common::Timestamp;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access_token::{LEEWAY_SECONDS, MAX_TOKEN_BYTES, TokenError};

async fn refused(verifier: &Verifier, token: &str) -> Refusal {
    verifier.verify(token).await.expect_err("a token that is no good")
}

#[tokio::test]
async fn an_access_token_is_read_without_asking_anybody() {
    let fixture = Fixture::new().await;
    let token = fixture.token("s1");
    let caller = fixture.verifier.verify(&token).await.unwrap();
    assert_eq!(caller, Caller::from(claims("s1")));
    assert_eq!((&*caller.username, &*caller.session, caller.number, caller.is_admin), ("ann", "s1", 42, false));
    assert_eq!(fixture.source.loads(), 1, "the first token brings the keys");
    for _ in 0..3 {
        assert_eq!(fixture.verifier.clone().verify(&token).await.unwrap(), caller);
    }
    assert_eq!(fixture.source.loads(), 1);
    let end = Duration::from_secs(900 + u64::try_from(LEEWAY_SECONDS).unwrap());
    fixture.clock.advance(end - Duration::from_secs(1));
    assert!(fixture.verifier.verify(&token).await.is_ok());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(matches!(refused(&fixture.verifier, &token).await, Refusal::Token(TokenError::Expired)));
}

#[tokio::test]
async fn revocations_count_at_once_also_for_what_was_verified_before() {
    let fixture = Fixture::new().await;
    let asked = fixture.serve([(api_token('a'), good())].into()).await;
    let (session, other) = (fixture.token("s1"), fixture.token("s2"));
    for token in [&session, &other, &api_token('a')] {
        fixture.verifier.verify(token).await.unwrap();
    }
    fixture.verifier.revocations().insert(&revoked("s1"));
    fixture.verifier.revocations().insert(&revoked("r1"));
    assert!(matches!(refused(&fixture.verifier, &session).await, Refusal::Revoked));
    assert!(matches!(refused(&fixture.verifier, &api_token('a')).await, Refusal::Revoked));
    assert!(fixture.verifier.verify(&other).await.is_ok());
    fixture.verifier.revocations().insert(&Revocation::User { user: ANN.parse().unwrap(), version: 2 });
    assert!(matches!(refused(&fixture.verifier, &other).await, Refusal::Revoked));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// Somebody whose session has ended must not get in because nobody has told this service yet.
#[tokio::test]
async fn nobody_gets_in_before_it_is_known_what_is_revoked() {
    let fixture = Fixture::new().await;
    let database = Database::open_file(&fixture.dir.path().join("s.db"), &[crate::revocation::STEP]).await.unwrap();
    let set = Revocations::load(&database).await.unwrap();
    set.insert(&revoked("s1"));
    let keys = Keys::open(fixture.source.clone(), DEFAULT_ISSUER, None).await;
    let verifier = Verifier::new(keys, set, fixture.bus.clone(), Arc::new(fixture.clock.clone()));
    assert!(matches!(refused(&verifier, &fixture.token("s1")).await, Refusal::Revoked), "that much is known");
    let refusal = refused(&verifier, &fixture.token("s2")).await;
    assert!(matches!(refusal, Refusal::Unprepared));
    assert_eq!(Error::from(refusal).status(), 503);
    assert!(matches!(refused(&verifier, "nonsense").await, Refusal::Token(TokenError::Malformed)));
}

#[tokio::test]
async fn a_new_key_is_fetched_once_and_strangers_do_not_make_us_ask() {
    let fixture = Fixture::new().await;
    fixture.verifier.verify(&fixture.token("s1")).await.unwrap();
    let rotated = Signer::new(DEFAULT_ISSUER, key(2)).sign(&claims("s2"));
    fixture.source.keys.store(Arc::new(KeySet::new(DEFAULT_ISSUER, [&key(1), &key(2)])));
    let unknown = |refusal| matches!(refusal, Refusal::Token(TokenError::UnknownKey));
    assert!(unknown(refused(&fixture.verifier, &rotated).await), "asked a moment ago");
    fixture.clock.advance(RELOAD_EVERY);
    assert!(fixture.verifier.verify(&rotated).await.is_ok());
    fixture.clock.advance(RELOAD_EVERY);
    let stranger = Signer::new(DEFAULT_ISSUER, key(3)).sign(&claims("s3"));
    for _ in 0..10 {
        assert!(unknown(refused(&fixture.verifier, &stranger).await));
    }
    assert_eq!(fixture.source.loads(), 3);
}

#[tokio::test]
async fn a_withdrawn_key_is_not_believed_any_more() {
    let fixture = Fixture::new().await;
    let token = fixture.token("s1");
    fixture.verifier.verify(&token).await.unwrap();
    fixture.source.keys.store(Arc::new(KeySet::new(DEFAULT_ISSUER, [&key(2)])));
    let database = Database::open_file(&fixture.dir.path().join("s.db"), &[crate::revocation::STEP]).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.verifier.clone().run(database, stop.clone()));
    let gone = async {
        while fixture.verifier.verify(&token).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the keys are loaded anew");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it stops").expect("and does not panic");
}

#[tokio::test]
async fn without_the_auth_service_known_keys_are_used_on_also_after_a_restart() {
    let fixture = Fixture::new().await;
    fixture.verifier.verify(&fixture.token("s1")).await.unwrap();
    fixture.source.fails(Some("connection refused"));
    let restarted = fixture.restarted().await;
    assert!(restarted.verify(&fixture.token("s1")).await.is_ok());
    assert_eq!(fixture.source.loads(), 1);
    // Perhaps a new key: nobody is told that their token is bad.
    let rotated = Signer::new(DEFAULT_ISSUER, key(2)).sign(&claims("s2"));
    for _ in 0..3 {
        let refusal = refused(&restarted, &rotated).await;
        assert!(matches!(&refusal, Refusal::Keys(LoadError(error)) if error == "connection refused"), "{refusal}");
    }
    assert_eq!(fixture.source.loads(), 2);
    tokio::fs::write(fixture.dir.path().join("jwks.json"), "half a fi").await.unwrap();
    assert!(matches!(refused(&fixture.restarted().await, &fixture.token("s1")).await, Refusal::Keys(_)));
    fixture.source.fails(None);
    assert!(fixture.restarted().await.verify(&fixture.token("s1")).await.is_ok());
}

#[tokio::test]
async fn an_api_token_is_asked_about_once_in_a_while() {
    let fixture = Fixture::new().await;
    let asked = fixture.serve([(api_token('a'), good())].into()).await;
    let caller = fixture.verifier.verify(&api_token('a')).await.unwrap();
    assert_eq!((&*caller.username, &*caller.display_name, &*caller.session, caller.number), ("ann", "ann", "r1", 42));
    assert!(caller.may("compute", "read", &["containers", "c1"]).is_ok());
    assert!(caller.may("compute", "start", &["containers", "c1"]).is_err());
    fixture.clock.advance(API_TOKEN_TTL - Duration::from_micros(1));
    assert_eq!(fixture.verifier.verify(&api_token('a')).await.unwrap(), caller);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    fixture.clock.advance(Duration::from_micros(1));
    assert_eq!(fixture.verifier.verify(&api_token('a')).await.unwrap(), caller);
    assert_eq!(asked.load(Ordering::Relaxed), 2);

    for _ in 0..3 {
        assert!(matches!(refused(&fixture.verifier, &api_token('b')).await, Refusal::ApiToken));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    fixture.clock.advance(Duration::from_secs(5));
    assert!(matches!(refused(&fixture.verifier, &api_token('b')).await, Refusal::ApiToken));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    // What cannot be one is no question at all.
    for token in [API_TOKEN_PREFIX.to_owned(), api_token('.'), api_token('a') + "a", "ecloud_\u{e9}".repeat(9)] {
        assert!(matches!(refused(&fixture.verifier, &token).await, Refusal::Token(TokenError::Malformed)));
    }
    let long = API_TOKEN_PREFIX.to_owned() + &"a".repeat(MAX_TOKEN_BYTES);
    assert!(matches!(refused(&fixture.verifier, &long).await, Refusal::Token(TokenError::TooLong(_))));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn an_answer_counts_no_longer_than_its_token() {
    let fixture = Fixture::new().await;
    let expires_at = Some(Timestamp { seconds: NOW + 10, nanos: 0 });
    let asked = fixture.serve([(api_token('a'), ValidateTokenResponse { expires_at, ..good() })].into()).await;
    for _ in 0..2 {
        fixture.verifier.verify(&api_token('a')).await.unwrap();
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    fixture.clock.advance(Duration::from_secs(10));
    fixture.verifier.verify(&api_token('a')).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn answers_that_cannot_be_are_not_believed() {
    let fixture = Fixture::new().await;
    let answers = [
        ValidateTokenResponse { record_id: String::new(), ..good() },
        ValidateTokenResponse { user_uid: "42".to_owned(), ..good() },
        ValidateTokenResponse { scopes: vec![Default::default(); 65], ..good() },
        ValidateTokenResponse { expires_at: Some(Timestamp { seconds: 0, nanos: -1 }), ..good() },
    ];
    fixture.serve("abcd".chars().map(api_token).zip(answers).collect()).await;
    for letter in "abcd".chars() {
        let refusal = refused(&fixture.verifier, &api_token(letter)).await;
        assert!(matches!(refusal, Refusal::Answer(_)), "{letter}: {refusal}");
    }
}

#[tokio::test]
async fn without_an_answer_an_api_token_is_neither_good_nor_bad() {
    let fixture = Fixture::new().await;
    // The database was opened by a thread, which a paused clock does not wait for.
    tokio::time::pause();
    assert!(matches!(refused(&fixture.verifier, &api_token('a')).await, Refusal::Bus(_)));
    // Asked, and silent.
    let mut questions = fixture.bus.serve(ValidateTokenRequest::SUBJECT).await.unwrap();
    let token = api_token('a');
    let (refusal, question) = tokio::join!(refused(&fixture.verifier, &token), questions.recv());
    assert!(matches!(refusal, Refusal::Bus(_)), "{refusal}");
    drop(question);
    drop(questions);
    fixture.serve([(api_token('a'), good())].into()).await;
    assert!(fixture.verifier.verify(&api_token('a')).await.is_ok());
}
