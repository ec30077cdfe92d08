//! SSH and HTTPS, switched on and off.

use edd_events::database::Kind;
use edd_proto::AnyEvent;
use serde_json::{Value, json};

use super::fixture::{ANN, BOB, Fixture};
use crate::scratch::on_each_database;

on_each_database![ssh_is_switched_and_keys_are_chosen, https_is_switched_and_redirected_to];

async fn ssh_is_switched_and_keys_are_chosen(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (id, key) = (fixture.run("x").await, fixture.add_key(ANN, 1).await);
    let bobs = fixture.add_key(BOB, 2).await;
    fixture.events().await;
    let path = format!("/compute/containers/{id}/ssh");
    let expected =
        json!({"ssh_enabled": true, "ssh_key_ids": null, "ssh_command": format!("ssh -p 2222 {id}@127.0.0.1")});
    assert_eq!(fixture.get(&path).await.ok(), expected);
    let told = async || {
        let mut events = fixture.events().await;
        assert!(events.len() <= 1, "{events:?}");
        events.pop().map(|event| match event {
            AnyEvent::ContainerSshToggled(event) => {
                let container = event.container.expect("its state");
                assert_eq!(container.ssh_enabled, event.ssh_enabled);
                (event.ssh_enabled, container.ssh_keys_restricted, container.ssh_key_ids)
            }
            other => panic!("{other:?}"),
        })
    };
    for (change, enabled, keys, expected) in [
        (json!({"ssh_enabled": false}), false, Value::Null, Some((false, false, vec![]))),
        (json!({"ssh_enabled": false}), false, Value::Null, None),
        (json!({"ssh_key_ids": [key, key]}), false, json!([key]), Some((false, true, vec![key]))),
        (json!({"ssh_enabled": true}), true, json!([key]), Some((true, true, vec![key]))),
        (json!({"ssh_key_ids": []}), true, json!([]), Some((true, true, vec![]))),
        (json!({"ssh_key_ids": null}), true, Value::Null, Some((true, false, vec![]))),
    ] {
        fixture.put(&path, change.clone()).await.done();
        let now = fixture.get(&path).await.ok();
        assert_eq!((&now["ssh_enabled"], &now["ssh_key_ids"]), (&json!(enabled), &keys), "{change}");
        assert_eq!(told().await, expected, "{change}");
    }
    for (change, why) in [
        (json!({}), "ssh_enabled"),
        (json!({"ssh_key_ids": [bobs]}), "keys of yours"),
        (json!({"ssh_key_ids": [key, 99]}), "keys of yours"),
        (json!({"ssh_key_ids": "all"}), "`ssh_key_ids`"),
    ] {
        let refused = fixture.put(&path, change).await.refused(400);
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(told().await, None);
}

async fn https_is_switched_and_redirected_to(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    fixture.events().await;
    let path = format!("/compute/containers/{id}/https");
    for (change, enabled, redirect) in [
        (json!({"redirect_to_https": true}), true, true),
        (json!({"https_enabled": false, "redirect_to_https": false}), false, false),
        (json!({"https_enabled": true}), true, false),
    ] {
        fixture.put(&path, change).await.done();
        let expected = json!({"https_enabled": enabled, "redirect_to_https": redirect});
        assert_eq!(fixture.get(&path).await.ok(), expected);
        let event = fixture.events().await.pop().expect("an event");
        let AnyEvent::ContainerHttpsToggled(event) = event else { panic!("{event:?}") };
        let container = event.container.expect("its state");
        assert_eq!((container.https_enabled, container.redirect_to_https), (enabled, redirect));
    }
    fixture.put(&path, json!({"https_enabled": true})).await.done();
    let refused = fixture.put(&path, json!({"https_enabled": false, "redirect_to_https": true})).await.refused(400);
    assert!(refused.contains("lead nowhere"), "{refused}");
    fixture.put(&path, json!({})).await.refused(400);
    assert_eq!(fixture.happenings().await, [""; 0], "nothing changed");
}
