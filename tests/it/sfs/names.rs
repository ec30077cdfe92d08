//! Names that are none, and bodies that are not what they say, over real sockets: by the gateway, which reads paths
//! first, and at the service itself.

use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use serde_json::{Value, json};

use crate::harness::{Connection, Deployment, Role};

use super::person::Person;

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_its_namespace() {
    let (nats, postgres) = (Nats::start(), Postgres::shared());
    let mut deployment = Deployment::separate(&nats, postgres);
    deployment.start().await;
    let user = deployment.register().await;
    let service = deployment.process(Role::Sfs).http;
    let ann = Person::new(deployment.gateway(), user);
    ann.until_known().await;
    let bob = Person::new(deployment.gateway(), deployment.register().await);
    bob.until_known().await;
    ann.done("POST /storage/namespaces", &json!({"name": "mine"})).await;
    bob.done("POST /storage/namespaces", &json!({"name": "other"})).await;
    assert_eq!(bob.send("PUT /storage/other/secret", &[], b"other").await.status, 201);
    let (deep, long) = (["a"; 33].join("/"), "x".repeat(256));
    let table: [(&str, bool); 22] = [
        ("../other/secret", true),
        ("%2e%2e/other/secret", true),
        (".%2E/other/secret", true),
        ("..%2fother%2fsecret", true),
        ("%2e%2e%2fother%2fsecret", true),
        ("a/../../other/secret", true),
        ("..%5cother%5csecret", true),
        ("..;/other/secret", false),
        ("%252e%252e/other/secret", false),
        ("a%00b", true),
        ("a%0d%0aSet-Cookie:%20x=1", true),
        ("a%7f", true),
        ("a//b", true),
        ("%2f%2fa", true),
        ("caf%e9", true),
        ("%c0%ae%c0%ae/secret", true),
        ("%ed%a0%80", true),
        ("a%e2%80%aetxt.exe", true),
        ("a%e2%80%8b", true),
        ("%20a", true),
        (&deep, true),
        (&long, true),
    ];
    for (by, address) in [("the gateway", ann.address), ("the service", service)] {
        let ann = ann.by(address);
        for (path, is_refused) in table {
            for request in [format!("GET /storage/mine/{path}"), format!("PUT /storage/mine/{path}")] {
                let answer = ann.send(&request, &[], b"x").await;
                let shown = format!("{by}: {request}: {} {}", answer.status, answer.text());
                assert_ne!(answer.text(), "other", "{shown}");
                let is_refused_here = (400..500).contains(&answer.status);
                assert!(is_refused_here || (!is_refused && answer.status < 300), "{shown}");
            }
        }
    }
    assert_eq!(bob.read("other/secret").await, b"other");
    let listed = ann.done("GET /storage/files?namespace=mine", &Value::Null).await;
    let paths: Vec<_> = listed.as_array().expect("a list").iter().map(|it| it["path"].clone()).collect();
    assert_eq!(paths, ["%2e%2e/other/secret", "..;/other/secret"], "these are names like others");
    // Bytes that are no path at all.
    for target in ["/storage/mine/a\u{0}b", "/storage/mine/\u{e9}", "/storage/mine/a\u{1}"] {
        let mut connection = Connection::open(ann.address).await;
        let head = ann.head(&format!("GET {target}"), &[]);
        connection.send(format!("{head}\r\n")).await;
        assert_eq!(connection.response().await.status, 400, "{}", target.escape_debug());
    }
    deployment.stop().await;
}

/// What a client says of its body is held against what comes.
#[tokio::test]
async fn lengths_that_lie_leave_nothing() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let user = deployment.register().await;
    let ann = Person::new(deployment.gateway(), user);
    ann.done("POST /storage/namespaces", &json!({"name": "docs"})).await;
    assert_eq!(ann.send("PUT /storage/docs/old", &[], b"old").await.status, 201);
    for path in ["old", "new"] {
        let request = format!("PUT /storage/docs/{path}?overwrite=true");
        // More is announced than comes.
        let mut connection = Connection::open(ann.address).await;
        connection.send(format!("{}Content-Length: 10\r\n\r\nshort", ann.head(&request, &[]))).await;
        drop(connection);
        for size in ["2", "4"] {
            let answer = ann.send(&request, &[("x-file-size", size)], b"new").await;
            assert_eq!(answer.status, 400, "{size}: {}", answer.text());
        }
        for lies in ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: -1", "Content-Length: 1e3"] {
            let mut connection = Connection::open(ann.address).await;
            connection.send(format!("{}{lies}\r\n\r\nnew", ann.head(&request, &[]))).await;
            assert_eq!(connection.response().await.status, 400, "{lies}");
        }
        // In chunks that end too early.
        let mut connection = Connection::open(ann.address).await;
        connection.send(format!("{}Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", ann.head(&request, &[]))).await;
        drop(connection);
    }
    assert_eq!(ann.read("docs/old").await, b"old");
    assert_eq!(ann.send("GET /storage/docs/new", &[], b"").await.status, 404);
    // Less is announced than comes: the file is what was announced, and the rest is no request.
    let mut connection = Connection::open(ann.address).await;
    let head = ann.head("PUT /storage/docs/new", &[]).replace("Connection: close\r\n", "");
    connection.send(format!("{head}Content-Length: 3\r\n\r\nnew and more\r\n\r\n")).await;
    assert_eq!(connection.response().await.status, 201);
    assert_eq!(connection.response().await.status, 400);
    assert_eq!(ann.read("docs/new").await, b"new");
}
