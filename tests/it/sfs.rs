//! Files as a new user meets them: a namespace, uploads of every kind, links, and what becomes of it all when its owner
//! goes.

mod faults;
mod large;
mod names;
mod person;

use std::collections::BTreeSet;

use edd_events::database::Database;
use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use serde_json::{Value, json};

use crate::harness::{Deployment, until};

use self::person::{Person, form};

/// From the first namespace to its new owner, as the README tells it.
async fn walk(mut deployment: Deployment) {
    deployment.start().await;
    let (ann, bob) = (deployment.register().await, deployment.register().await);
    let (ann, bob) = (Person::new(deployment.gateway(), ann), Person::new(deployment.gateway(), bob));
    ann.until_known().await;
    bob.until_known().await;

    let made = ann.done("POST /storage/namespaces", &json!({"name": "media", "visibility": "private"})).await;
    assert_eq!((&made["name"], &made["visibility"]), (&json!("media"), &json!(0)));
    // Raw, in a form, and in parts.
    let raw = ann.send("PUT /storage/media/notes/today.txt", &[], b"hello").await;
    assert_eq!((raw.status, raw.json()["size"].as_u64()), (201, Some(5)), "{}", raw.text());
    let (content_type, body) = form("1.png", "image/png", b"\x89PNG");
    let headers = [("content-type", content_type.as_str()), ("x-file-size", "4")];
    let posted = ann.send("POST /storage/media/1.png?id=transfer-1", &headers, &body).await;
    assert_eq!(posted.status, 200, "{}", posted.text());
    let location = ann.create_upload("media", "film.mp4", 10).await;
    ann.add(&location, 0, b"01234").await;
    ann.add(&location, 5, b"56789").await;
    let listed = ann.done("GET /storage/files?namespace=media", &Value::Null).await;
    let paths: Vec<_> =
        listed.as_array().expect("a list").iter().map(|it| it["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, ["1.png", "film.mp4", "notes/today.txt"]);
    assert_eq!(ann.read("media/film.mp4").await, b"0123456789");
    // Under the dashboard's own origin, too.
    let dashboard =
        ann.at("cloud.localhost").send("GET /storage/media/notes/today.txt", &[("range", "bytes=1-3")], b"").await;
    assert_eq!((dashboard.status, dashboard.text()), (206, "ell"));

    // For others, and for whoever has a link.
    assert_eq!(bob.send("GET /storage/media/1.png", &[], b"").await.status, 404);
    let link =
        ann.done("POST /storage/shares", &json!({"namespace": "media", "path": "notes", "max_downloads": 1})).await;
    let link = format!("/storage/shares/{}/today.txt", link["token"].as_str().expect("a token"));
    assert_eq!(bob.nobody().send(&format!("GET {link}"), &[], b"").await.text(), "hello");
    assert_eq!(bob.nobody().send(&format!("GET {link}"), &[], b"").await.status, 404);
    ann.done("PUT /storage/namespaces/media", &json!({"visibility": 2})).await;
    assert_eq!(bob.nobody().send("GET /storage/media/notes/today.txt", &[], b"").await.text(), "hello");

    // Its owner goes, and an administrator gives it to somebody else.
    deployment.delete(&ann.user.id).await;
    let admin = Person::admin(&deployment).await;
    let orphaned = async || admin.send("GET /admin/namespaces?orphaned=true", &[], b"").await.json();
    until("the namespace to be nobody's", async || match orphaned().await {
        list if list[0]["name"] == "media" => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let given = admin.done("PUT /storage/admin/namespaces/media", &json!({"owner": bob.user.id})).await;
    assert_eq!(given["owner"], json!(bob.user.id));
    assert_eq!(bob.read("media/film.mp4").await, b"0123456789");
    bob.done("DELETE /storage/media/notes?recursive=true", &Value::Null).await;
    bob.done("DELETE /storage/namespaces/media", &Value::Null).await;
    assert_eq!(bob.send("GET /storage/media/film.mp4", &[], b"").await.status, 404);
    told(&deployment).await;
    deployment.stop().await;
}

/// Every change was told, on the bus.
async fn told(deployment: &Deployment) {
    let expected = BTreeSet::from(["created", "uploaded", "visibility_changed", "deleted"].map(str::to_owned));
    until("all of it to be told", async || {
        let database = Database::attach(deployment.database("sfs")).await.map_err(|error| error.to_string())?;
        let statement = "SELECT subject FROM outbox WHERE published_at IS NOT NULL AND subject LIKE 'sfs.%'";
        let subjects = sqlx::query_scalar::<_, String>(statement).fetch_all(database.reader()).await;
        database.close().await;
        let subjects = subjects.map_err(|error| error.to_string())?;
        let kinds: BTreeSet<_> = subjects.iter().filter_map(|it| it.rsplit('.').next().map(str::to_owned)).collect();
        if kinds == expected { Ok(()) } else { Err(format!("{subjects:?}")) }
    })
    .await;
}

#[tokio::test]
async fn files_from_the_first_to_their_next_owner_on_one_machine() {
    walk(Deployment::single()).await;
}

#[tokio::test]
async fn files_from_the_first_to_their_next_owner_on_nats_and_postgres() {
    let (nats, postgres) = (Nats::start(), Postgres::shared());
    walk(Deployment::separate(&nats, postgres)).await;
}

#[tokio::test]
async fn files_from_the_first_to_their_next_owner_on_nats_and_sqlite() {
    let nats = Nats::start();
    let mut deployment = Deployment::single();
    deployment.set_all("NATS_URL", &nats.url());
    walk(deployment).await;
}

#[tokio::test]
async fn files_from_the_first_to_their_next_owner_on_its_own_bus_and_postgres() {
    let mut deployment = Deployment::single();
    for service in ["AUTH", "SFS", "COMPUTE", "GATEWAY"] {
        deployment.set_all(&format!("{service}_DATABASE_URL"), &Postgres::shared().database());
    }
    walk(deployment).await;
}

/// Deleted with its owner, where the operator wants it so.
#[tokio::test]
async fn a_user_takes_their_files_along_if_that_is_configured() {
    let mut deployment = Deployment::single();
    deployment.set_all("SFS_ON_USER_DELETE", "delete");
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "media", "visibility": 2})).await;
    assert_eq!(ann.send("PUT /storage/media/a", &[], b"x").await.status, 201);
    deployment.delete(&ann.user.id).await;
    until("the namespace to be gone", async || {
        match ann.nobody().send("GET /storage/media/a", &[], b"").await.status {
            404 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let admin = Person::admin(&deployment).await;
    assert_eq!(admin.done("GET /admin/namespaces", &Value::Null).await, json!([]));
}

/// What tus clients in a page of the dashboard need, and no other page gets.
#[tokio::test]
async fn a_page_of_the_dashboard_uploads_with_tus() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "media"})).await;
    let port = deployment.gateway().http.port();
    let own = format!("http://cloud.localhost:{port}");
    let ann = ann.at(&format!("storage.cloud.localhost:{port}"));
    let wanted = "authorization,tus-resumable,upload-offset,content-type";
    for (origin, status) in [(own.as_str(), 204), ("http://x.compute.cloud.localhost", 403)] {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PATCH"),
            ("access-control-request-headers", wanted),
        ];
        let preflight = ann.nobody().send("OPTIONS /storage/tus/x", &headers, b"").await;
        assert_eq!(preflight.status, status, "{origin}");
        if status == 204 {
            assert!(preflight.header("access-control-allow-methods").contains("PATCH"));
            assert_eq!(preflight.header("access-control-allow-headers"), wanted);
        }
    }
    let metadata = person::metadata("media", "a");
    let headers = [
        ("origin", own.as_str()),
        ("tus-resumable", "1.0.0"),
        ("upload-length", "1"),
        ("upload-metadata", metadata.as_str()),
    ];
    let made = ann.send("POST /storage/tus", &headers, b"").await;
    assert_eq!((made.status, made.header("access-control-allow-origin")), (201, own.as_str()));
    let exposed = made.header("access-control-expose-headers").to_ascii_lowercase();
    for name in ["location", "upload-offset", "upload-length", "upload-expires", "tus-resumable", "x-next-cursor"] {
        assert!(exposed.split(", ").any(|it| it == name), "{name} in {exposed}");
    }
}
