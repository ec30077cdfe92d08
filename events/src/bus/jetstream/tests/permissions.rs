//! A user who may not do everything.

use super::*;

const USERS_FILE: &str = r#"
authorization { users = [
  { user: admin, password: "of all" }
  { user: service, password: secret, permissions: {
      publish: { deny: ["user.denied.>", "$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>", "$JS.API.CONSUMER.CREATE.*.mailer.>", "$JS.API.CONSUMER.CREATE.*.auditor"] }
      subscribe: { allow: ["_INBOX_service.>", "check.>"] }
  } }
] }
"#;

async fn connect_as(nats: &Nats, user: &str, password: &str) -> JetStreamBus {
    let inbox_prefix = Some(format!("_INBOX_{user}"));
    let (user, password) = (Some(user.to_owned()), Some(password.to_owned()));
    let config = JetStreamConfig { user, password, inbox_prefix, ..config(nats) };
    JetStreamBus::connect(&config).await.expect("settings")
}

async fn admin(nats: &Nats) -> JetStreamBus {
    connect_as(nats, "admin", "of all").await
}

async fn service(nats: &Nats) -> JetStreamBus {
    connect_as(nats, "service", "secret").await
}

/// Also one without batches: this stream takes none, and the user may not change that.
#[tokio::test]
async fn what_an_admin_made_is_used_as_it_is() {
    let nats = Nats::with_config(USERS_FILE);
    let admin = admin(&nats).await;
    let (streams, consumers) = ([USERS, KEYS], [MAILER, AUDITOR]);
    admin.ensure(&streams, &consumers).await.expect("streams and consumers");
    for spec in streams {
        let mut info = admin.admin(&format!("STREAM.INFO.{}", spec.name), Value::Null).await;
        info["config"]["allow_atomic"] = json!(false);
        admin.admin(&format!("STREAM.UPDATE.{}", spec.name), info["config"].take()).await;
    }
    let service = service(&nats).await;
    service.ensure(&streams, &consumers).await.expect("as they should be");
    assert!(!service.keeper("user.a.created").expect("a stream").is_batching);
    assert!(!service.keeper("key.a.created").expect("a stream").is_batching);
    conformance::check_as_they_are(Arc::new(service)).await;
}

#[tokio::test]
async fn what_is_absent_and_may_not_be_made_is_named() {
    let nats = Nats::with_config(USERS_FILE);
    let error = service(&nats).await.ensure(&[USERS], &[]).await.expect_err("a refusal");
    let text = error.to_string();
    assert!(matches!(error, BusError::Refused(_)), "{error:?}");
    assert!(text.contains("stream USERS does not exist") && text.contains("$JS.API.STREAM.CREATE.USERS"), "{text}");
}

#[tokio::test]
async fn a_denied_publish_is_a_refusal_and_stops_what_follows() {
    let nats = Nats::with_config(USERS_FILE);
    let admin = admin(&nats).await;
    admin.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("streams and consumers");
    let service = service(&nats).await;
    service.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("as they should be");
    assert!(service.keeper("user.a.created").expect("a stream").is_batching);
    let allowed = changes(80);
    let mut messages = allowed.clone();
    messages.insert(40, message("denied", "user.denied.created"));
    // In the middle of a batch, of a few messages, alone, first of a batch, last of a batch.
    for (run, taken) in [(0..81, 40), (38..43, 2), (40..41, 0), (40..81, 0), (0..41, 40)] {
        let (positions, failure) = service.publish(&messages[run.clone()]).await;
        let seqs: Vec<_> = positions.iter().map(|position| position.seq).collect();
        assert_eq!(seqs, (run.start as u64 + 1..=run.start as u64 + taken).collect::<Vec<_>>(), "{failure:?}");
        let Some(BusError::Refused(reason)) = failure else { panic!("{failure:?}") };
        assert!(reason.contains("\"user.denied.created\"") && reason.contains("permissions"), "{reason}");
    }
    assert_eq!(admin.ids("USERS").await, ids_of(&allowed[..40]));
}

#[tokio::test]
async fn a_service_that_may_not_hear_its_questions_is_told() {
    let nats = Nats::with_config(USERS_FILE);
    let service = service(&nats).await;
    service.serve("check.length").await.expect("an allowed subject");
    let refused = service.serve("other.length").await.expect_err("a refusal");
    assert!(matches!(&refused, BusError::Refused(reason) if reason.contains("\"other.length\"")), "{refused}");
    let refused = service.ask("user.denied.created", "?".into(), PATIENCE).await.expect_err("a refusal");
    assert!(matches!(refused, BusError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn a_wrong_password_is_told_by_every_call() {
    let nats = Nats::with_config(USERS_FILE);
    let bus = connect_as(&nats, "service", "wrong").await;
    let error = bus.ensure(&[USERS], &[]).await.expect_err("no connection");
    assert!(matches!(&error, BusError::Unavailable(reason) if reason.contains("authorization violation")), "{error}");
    assert!(!bus.is_connected());
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let nats = Nats::start();
    let absent = Some("/nonexistent/file".into());
    let credentials = JetStreamConfig { credentials_file: absent.clone(), ..config(&nats) };
    let authority = JetStreamConfig { tls_ca_file: absent, ..config(&nats) };
    for config in [credentials, authority] {
        let error = JetStreamBus::connect(&config).await.expect_err("a refusal");
        assert!(matches!(&error, BusError::Refused(reason) if reason.contains("/nonexistent/file")), "{error}");
    }
}
