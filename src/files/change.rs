//! `edd files rm`, `mkdir` and `mv`

use hyper::Method;
use serde_json::{Value, json};

use super::args::{MkdirArgs, MvArgs, RmArgs};
use super::client::Server;
use crate::admin_client::encode;
use crate::exit::{Code, Failure};

pub async fn remove(args: &RmArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    for place in &args.places {
        let path = match place.place() {
            Some(place) => format!("{}?recursive={}", place.url(), args.recursive),
            None if args.recursive => format!("/storage/namespaces/{}", encode(&place.namespace)),
            None => {
                let message = format!("{} is a namespace; -r deletes it with all that is in it", place.namespace);
                return Err(Failure::new(Code::Failure, message));
            }
        };
        server.ask(Method::DELETE, &path, None).await?;
    }
    tell(args.server.json, &json!({ "status": "ok" }));
    Ok(())
}

pub async fn make(args: &MkdirArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let (path, wanted) = match args.place.place() {
        Some(place) => ("/storage/files/folders", json!({ "namespace": place.namespace, "path": place.path })),
        None => {
            let wanted = json!({ "name": args.place.namespace, "visibility": args.visibility.as_str() });
            ("/storage/namespaces", wanted)
        }
    };
    tell(args.server.json, &server.ask(Method::POST, path, Some(&wanted)).await?);
    Ok(())
}

pub async fn rename(args: &MvArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let to = args.to.receive(args.from.name());
    let wanted = json!({
        "namespace": args.from.namespace, "from": args.from.path,
        "to_namespace": to.namespace, "to": to.path, "overwrite": args.overwrite,
    });
    tell(args.server.json, &server.ask(Method::POST, "/storage/files/move", Some(&wanted)).await?);
    Ok(())
}

/// Who does not ask for JSON needs no word when all is well.
fn tell(as_json: bool, answer: &Value) {
    if as_json {
        println!("{answer}");
    }
}
