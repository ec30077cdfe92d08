//! Containers over HTTP: their shape, their bounds, and that nobody sees another's.

use std::collections::HashMap;

use edd_events::bus::Bus;
use edd_events::database::Kind;
use edd_proto::auth::{Scope, ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{AnyEvent, Encoding, Request};
use http::Method;
use serde_json::{Value, json};

use super::fixture::{ANN, BOB, Fixture, SERVICE_KEY, config};
use super::scripted::Call;
use crate::scratch::on_each_database;

on_each_database![
    a_container_has_the_shape_that_clients_know,
    what_is_out_of_bounds_is_refused_with_what_and_where,
    quotas_name_the_limit_and_deleting_makes_room,
    nobody_sees_or_touches_what_is_anothers,
    a_container_can_be_made_with_ports,
    settings_hold_from_the_next_start,
    administrators_see_all_of_them_page_by_page,
    api_tokens_do_what_their_scopes_say,
];

async fn a_container_has_the_shape_that_clients_know(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    assert_eq!(fixture.get("/compute/containers").await.ok(), json!({"containers": []}));
    let made = fixture.post("/compute/containers", json!({"name": "blog"})).await.ok();
    let id = made["id"].as_str().expect("an id").to_owned();
    let expected = json!({
        "id": id, "name": "blog", "status": "pending",
        "hostname": format!("{id}.compute.cloud.localhost"), "ssh_command": format!("ssh -p 2222 {id}@127.0.0.1"),
        "memory_mb": 512, "storage_gb": 5, "instance_type": "nano", "image": "base", "pull_policy": "IfNotPresent",
        "mount_paths": ["/root"], "ssh_enabled": true, "ssh_key_ids": null, "https_enabled": true,
        "redirect_to_https": false, "idle_timeout_s": 3600, "created_at": "2026-01-01T00:00:00Z",
    });
    assert_eq!(made, expected);
    assert_eq!(fixture.get("/compute/containers").await.ok(), json!({"containers": [expected]}));
    fixture.round().await;
    let shown = fixture.get(&format!("/compute/containers/{id}")).await.ok();
    assert_eq!(shown["status"], json!("running"));
    let created = fixture.events().await.into_iter().next().expect("an event");
    let AnyEvent::ContainerCreated(created) = created else { panic!("{created:?}") };
    assert_eq!((created.user_id, created.user_uid.as_str(), created.owner_username.as_str()), (42, ANN, "ann"));
    assert_eq!((created.memory_mb, created.storage_gb, created.instance_type.as_str()), (512, 5, "nano"));
    let told = created.container.expect("its state");
    assert_eq!((told.container_id.as_str(), told.status, told.ssh_keys_restricted), (id.as_str(), 1, false));
    let images = fixture.get("/compute/images").await.ok();
    assert_eq!(images["images"][1], json!({"name": "base", "description": "", "is_default": true}));
    let full = json!({
        "name": "big", "memory_mb": 1024, "storage_gb": 20, "instance_type": "small", "ssh_key_ids": [],
        "ssh_enabled": false, "mount_paths": ["/srv", "/var/lib/x"], "image": "other", "pull_policy": "Always",
    });
    let made = fixture.post("/compute/containers", full.clone()).await.ok();
    for (field, value) in full.as_object().expect("an object") {
        let expected = if field == "ssh_key_ids" { &Value::Null } else { value };
        assert_eq!(&made[field], expected, "{field}");
    }
    fixture.round().await;
    let id = made["id"].as_str().expect("an id").parse().expect("an id");
    let spec = fixture.platform.held(id).expect("a container").spec.expect("a spec");
    assert_eq!((spec.cpu_millis, spec.memory_mb, spec.image.as_str()), (1000, 1024, "other"));
    assert_eq!(spec.mount_paths, ["/srv", "/var/lib/x"]);
}

async fn what_is_out_of_bounds_is_refused_with_what_and_where(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for (body, why) in [
        (json!({}), "name"),
        (json!({"name": ""}), "name: 1 to 63"),
        (json!({"name": "a/b"}), "name: 1 to 63"),
        (json!({"name": 7}), "`name`"),
        (json!({"name": "x", "memory_mb": 63}), "memory_mb: 64 to 8192"),
        (json!({"name": "x", "memory_mb": 8193}), "memory_mb: 64 to 8192"),
        (json!({"name": "x", "memory_mb": -1}), "`memory_mb`"),
        (json!({"name": "x", "memory_mb": 5_000_000_000_i64}), "`memory_mb`"),
        (json!({"name": "x", "storage_gb": 0}), "storage_gb: 1 to 100"),
        (json!({"name": "x", "storage_gb": 101}), "storage_gb: 1 to 100"),
        (json!({"name": "x", "instance_type": "planet"}), "instance_type: nano"),
        (json!({"name": "x", "pull_policy": "sometimes"}), "pull_policy: Always"),
        (json!({"name": "x", "image": "../etc"}), "image: 1 to 255"),
        (json!({"name": "x", "image": "a b"}), "image: 1 to 255"),
        (json!({"name": "x", "mount_paths": ["/proc"]}), "mount_paths: \"/proc\""),
        (json!({"name": "x", "mount_paths": ["/a/../b"]}), "mount_paths: \"/a/../b\""),
        (json!({"name": "x", "ssh_key_ids": [1]}), "ssh_key_ids: keys of yours"),
        (json!({"name": "x", "ssh_key_ids": [], "ssh_enabled": true}), "ssh_key_ids: choose a key"),
        (json!({"name": "x", "ssh_key_ids": vec![1; 101]}), "ssh_key_ids: at most 100"),
        (json!({"name": "x", "ingress_rules": [{"port": 80}]}), "port: 8000 to 8100"),
        (json!({"name": "x", "ingress_rules": [{"port": 8000}, {"port": 8000}]}), "a rule for this port"),
    ] {
        let answer = fixture.post("/compute/containers", body.clone()).await;
        assert!(answer.status == 400 || answer.status == 409, "{body} {}", answer.text);
        let status = answer.status;
        let refused = answer.refused(status);
        assert!(refused.contains(why), "{body}: {refused}");
    }
    assert_eq!(fixture.get("/compute/containers").await.ok(), json!({"containers": []}));
    assert_eq!(fixture.happenings().await, [""; 0], "what is refused leaves nothing behind");
}

async fn quotas_name_the_limit_and_deleting_makes_room(kind: Kind) {
    let mut config = config();
    config.quotas.containers = 3;
    let fixture = Fixture::with(kind, config).await;
    let first = fixture.create("a").await;
    fixture.create("b").await;
    fixture.create("c").await;
    let fourth = async || fixture.post("/compute/containers", json!({"name": "d"})).await;
    assert_eq!(fourth().await.refused(409), "you have 3 containers, which is the limit: delete one first");
    fixture.create_as(BOB, json!({"name": "b"})).await;
    fixture.delete(&format!("/compute/containers/{first}")).await.done();
    fourth().await.ok();
    let many = futures_util::future::join_all(
        (0..8).map(|_| fixture.call(BOB, Method::POST, "/compute/containers").json(&json!({"name": "x"})).send()),
    );
    let made = many.await.into_iter().filter(|answer| answer.status == 200).count();
    assert_eq!(made, 2, "those that come at once are counted too");
}

async fn nobody_sees_or_touches_what_is_anothers(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("blog").await;
    fixture.events().await;
    let path = format!("/compute/containers/{id}");
    for (method, tail, body) in [
        (Method::GET, "", json!(null)),
        (Method::DELETE, "", json!(null)),
        (Method::POST, "/start", json!(null)),
        (Method::POST, "/stop", json!(null)),
        (Method::POST, "/hibernate", json!(null)),
        (Method::POST, "/wake", json!(null)),
        (Method::GET, "/ssh", json!(null)),
        (Method::PUT, "/ssh", json!({"ssh_enabled": false})),
        (Method::GET, "/https", json!(null)),
        (Method::PUT, "/https", json!({"https_enabled": false})),
        (Method::GET, "/ingress", json!(null)),
        (Method::POST, "/ingress", json!({"port": 8000})),
        (Method::DELETE, "/ingress/8000", json!(null)),
        (Method::GET, "/mounts", json!(null)),
        (Method::PUT, "/mounts", json!({"mount_paths": []})),
        (Method::GET, "/pull-policy", json!(null)),
        (Method::PUT, "/pull-policy", json!({"pull_policy": "Never"})),
        (Method::GET, "/idle", json!(null)),
        (Method::PUT, "/idle", json!({"idle_timeout_s": 0})),
    ] {
        let asked = |user: &'static str, path: String| {
            let call = fixture.call(user, method.clone(), &path);
            if body.is_null() { call } else { call.json(&body) }
        };
        let foreign = asked(BOB, format!("{path}{tail}")).send().await;
        let unknown = asked(ANN, format!("/compute/containers/zzzzzzzzzz{tail}")).send().await;
        let nonsense = asked(ANN, format!("/compute/containers/no%2Fid{tail}")).send().await;
        assert_eq!(foreign.text, unknown.text, "{method} {tail}");
        assert_eq!(nonsense.text, unknown.text, "{method} {tail}");
        assert!(foreign.refused(404).contains("container"), "{method} {tail}");
        let nobody = fixture.anonymous(method.clone(), &format!("{path}{tail}")).send().await;
        assert_eq!(nobody.status, 401, "{method} {tail}");
        let service = fixture.anonymous(method.clone(), &format!("{path}{tail}"));
        assert_eq!(service.header("x-service-key", SERVICE_KEY).send().await.status, 401, "{method} {tail}");
    }
    let bobs = fixture.call(BOB, Method::GET, "/compute/containers").send().await.ok();
    assert_eq!(bobs, json!({"containers": []}));
    assert_eq!(fixture.happenings().await, [""; 0]);
    assert_eq!(fixture.status(id).await, "running");
}

async fn a_container_can_be_made_with_ports(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let rules = json!([{"port": 8000, "target_port": 3000}, {"port": 8001, "protocol": "tcp"}]);
    let id = fixture.create_as(ANN, json!({"name": "x", "ingress_rules": rules, "enable_ssh": false})).await;
    let listed = fixture.get(&format!("/compute/containers/{id}/ingress")).await.ok();
    let ports: Vec<_> = listed["rules"].as_array().expect("rules").iter().map(|rule| rule["port"].clone()).collect();
    assert_eq!(ports, [json!(8000), json!(8001)]);
    assert_eq!(fixture.happenings().await, ["created", "requested", "requested"]);
    assert_eq!(fixture.show(id).await["ssh_enabled"], json!(false));
}

async fn settings_hold_from_the_next_start(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    fixture.events().await;
    let path = |tail: &str| format!("/compute/containers/{id}/{tail}");
    for (tail, body, bad, why) in [
        ("mounts", json!({"mount_paths": ["/srv"]}), json!({"mount_paths": ["srv"]}), "mount_paths"),
        ("pull-policy", json!({"pull_policy": "Never"}), json!({"pull_policy": "never"}), "pull_policy"),
        ("idle", json!({"idle_timeout_s": 60}), json!({"idle_timeout_s": 59}), "idle_timeout_s: 60 to"),
    ] {
        fixture.put(&path(tail), body.clone()).await.done();
        assert_eq!(fixture.get(&path(tail)).await.ok(), body);
        let refused = fixture.put(&path(tail), bad).await.refused(400);
        assert!(refused.contains(why), "{refused}");
    }
    fixture.put(&path("idle"), json!({"idle_timeout_s": 0})).await.done();
    assert_eq!(fixture.happenings().await, [""; 0], "this is nobody else's");
    let spec = || fixture.platform.held(id).expect("a container").spec.expect("a spec");
    assert_eq!(spec().mount_paths, ["/root"]);
    fixture.act(id, "stop").await.done();
    fixture.round().await;
    fixture.act(id, "start").await.done();
    fixture.round().await;
    assert_eq!(spec().mount_paths, ["/srv"]);
    assert_eq!(fixture.platform.count(Call::Start), 2);
}

async fn administrators_see_all_of_them_page_by_page(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for user in [ANN, BOB, ANN] {
        fixture.create_as(user, json!({"name": "x"})).await;
    }
    let gone = fixture.create("gone").await;
    fixture.delete(&format!("/compute/containers/{gone}")).await.done();
    fixture.get("/compute/admin/containers").await.refused(403);
    let admin = format!("Bearer {}", fixture.token(BOB, "admin"));
    let (mut seen, mut path) = (Vec::new(), "/compute/admin/containers?limit=2".to_owned());
    loop {
        let answer = fixture.anonymous(Method::GET, &path).header("authorization", &admin).send().await;
        let next = answer.headers.get("x-next-cursor").map(|next| next.to_str().expect("text").to_owned());
        let list = answer.ok();
        let list = list.as_array().expect("a list");
        assert!(list.len() <= 2);
        seen.extend(list.iter().map(|it| it["user_id"].as_str().expect("an id").to_owned()));
        let Some(next) = next else { break };
        path = format!("/compute/admin/containers?limit=2&after={next}");
    }
    seen.sort();
    assert_eq!(seen, [ANN, ANN, BOB]);
}

async fn api_tokens_do_what_their_scopes_say(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (own, other) = (fixture.run("own").await, fixture.run("other").await);
    let scope = |resource: String, actions: &[&str]| Scope {
        resource,
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
    };
    let token = format!("ecloud_{}", "a".repeat(43));
    let answer = ValidateTokenResponse {
        valid: true,
        user_id: 42,
        username: "ann".to_owned(),
        user_uid: ANN.to_owned(),
        scopes: vec![scope(format!("compute.{ANN}.containers.{own}"), &["read", "update"])],
        record_id: "r1".to_owned(),
        ..Default::default()
    };
    let answers = HashMap::from([(token.clone(), answer)]);
    let mut questions = fixture.bus.serve(ValidateTokenRequest::SUBJECT).await.expect("a service");
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let asked: ValidateTokenRequest = Encoding::Protobuf.decode(&question.payload).expect("a question");
            let answer = answers.get(&asked.token).cloned().unwrap_or_default();
            let _ = question.reply.send(Encoding::Protobuf.encode(&answer).expect("bytes").into());
        }
    });
    let bearer = format!("Bearer {token}");
    for (method, path, status) in [
        (Method::GET, format!("/compute/containers/{own}"), 200),
        (Method::POST, format!("/compute/containers/{own}/stop"), 200),
        (Method::DELETE, format!("/compute/containers/{own}"), 403),
        (Method::GET, format!("/compute/containers/{other}"), 403),
        (Method::GET, "/compute/containers".to_owned(), 403),
        (Method::GET, "/compute/ssh-keys".to_owned(), 403),
        (Method::GET, "/compute/admin/containers".to_owned(), 403),
    ] {
        let answer = fixture.anonymous(method.clone(), &path).header("authorization", &bearer).send().await;
        assert_eq!(answer.status, status, "{method} {path} {}", answer.text);
    }
}
