//! A request, as far as the file system has to know it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dav_server::fs::{FsError, FsFuture};
use edd_events::publisher::Cause;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};

use super::Spot;
use crate::caller::Caller;
use crate::error::Error;
use crate::sfs::model::{Actor, NamespaceName, Replace, Visitor};

/// Who asks for what. Clones are the same request.
#[derive(Clone, Debug)]
pub(in crate::sfs) struct Request(Arc<Inner>);

struct Inner {
    /// None: nobody that we know.
    caller: Option<Caller>,
    cause: Cause,
    method: Method,
    target: Option<Spot>,
    /// Of COPY and MOVE.
    destination: Option<Spot>,
    /// `Depth: 0`: a folder without what is in it.
    is_shallow: bool,
    replace: Replace,
    /// Why the file system refused something, which it cannot tell in the words that `dav-server` has for it.
    refusal: Mutex<Option<Error>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("method", &self.method).field("target", &self.target).finish_non_exhaustive()
    }
}

impl Request {
    pub(in crate::sfs) fn new(caller: Option<Caller>, cause: Cause, request: &http::request::Parts) -> Self {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        Self(Arc::new(Inner {
            caller,
            cause,
            method: request.method.clone(),
            target: Spot::of_url(request.uri.path()),
            destination: header("destination").and_then(Spot::of_url),
            is_shallow: header("depth") == Some("0"),
            replace: replace(&request.headers),
            refusal: Mutex::default(),
        }))
    }

    pub(super) fn cause(&self) -> &Cause {
        &self.0.cause
    }

    pub(super) fn replace(&self) -> Replace {
        if self.is_lock() { Replace::Never } else { self.0.replace }
    }

    /// A lock on a name that no file has makes an empty one (RFC 4918, 7.3).
    pub(super) fn is_lock(&self) -> bool {
        self.0.method.as_str() == "LOCK"
    }

    /// What COPY and MOVE are about.
    pub(super) fn target(&self) -> Option<&Spot> {
        self.0.target.as_ref()
    }

    /// Whether a folder is meant with all that is in it, and is at `spot`, where the file system takes care of that.
    pub(super) fn takes_whole(&self, spot: &Spot) -> bool {
        match self.0.method.as_str() {
            "DELETE" => !self.0.is_shallow,
            "MOVE" => true,
            "COPY" => !self.0.is_shallow || self.is_destination(spot),
            _ => false,
        }
    }

    /// Whether the folder that is made at `spot` is to have in it what another has.
    pub(super) fn copies_whole(&self, spot: &Spot) -> bool {
        self.0.method.as_str() == "COPY" && !self.0.is_shallow && self.is_destination(spot)
    }

    /// Whether `spot` is where something is copied or moved to.
    pub(super) fn is_destination(&self, spot: &Spot) -> bool {
        self.0.destination.as_ref() == Some(spot)
    }

    /// Whoever reads in `namespace`.
    ///
    /// # Errors
    /// The caller's token does not allow it.
    pub(super) fn visitor(&self, namespace: Option<&NamespaceName>) -> Result<Visitor, Error> {
        match &self.0.caller {
            None => Ok(Visitor::Anybody),
            Some(caller) => actor(caller, "read", namespace).map(Visitor::User),
        }
    }

    /// Whoever does `action` in `namespace`.
    ///
    /// # Errors
    /// Nobody does, or their token does not allow it.
    pub(super) fn actor(&self, action: &str, namespace: Option<&NamespaceName>) -> Result<Actor, Error> {
        let caller = self.0.caller.as_ref();
        let caller = caller.ok_or_else(|| Error::new(StatusCode::UNAUTHORIZED, "sign in to change anything"))?;
        actor(caller, action, namespace)
    }

    /// Does `work` in the words of `dav-server`; its error is kept.
    pub(super) fn tell<'a, T>(&'a self, work: impl Future<Output = Result<T, Error>> + Send + 'a) -> FsFuture<'a, T>
    where
        T: Send + 'a,
    {
        Box::pin(async move { work.await.map_err(|error| self.refuse(error)) })
    }

    pub(super) fn refuse(&self, error: Error) -> FsError {
        // What is not there may well be what somebody asked to make.
        if error.status() == StatusCode::NOT_FOUND {
            return FsError::NotFound;
        }
        *self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        FsError::GeneralFailure
    }

    /// The last error that was told.
    pub(in crate::sfs) fn refusal(&self) -> Option<Error> {
        self.0.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn actor(caller: &Caller, action: &str, namespace: Option<&NamespaceName>) -> Result<Actor, Error> {
    let path: Vec<&str> = ["namespaces"].into_iter().chain(namespace.map(NamespaceName::as_str)).collect();
    let permit = caller.may("storage", action, &path)?;
    Ok(Actor::new(caller, permit))
}

/// What a PUT does with a file that is there. `dav-server` looks, too, but not in the step that replaces it.
fn replace(headers: &HeaderMap) -> Replace {
    let header = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::trim);
    if header(IF_NONE_MATCH) == Some("*") {
        return Replace::Never;
    }
    match header(IF_MATCH) {
        Some("*") => Replace::Existing,
        Some(tag) => tag.trim_matches('"').parse().map_or(Replace::Always, Replace::Matching),
        None => Replace::Always,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&'static str, &str)]) -> Request {
        let mut builder = http::Request::builder().method(method).uri("/storage/dav/docs/a");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Request::new(None, Cause::default(), &builder.body(()).expect("a request").into_parts().0)
    }

    #[test]
    fn what_is_replaced_is_as_the_client_expects_it() {
        let replace = |headers: &[(&'static str, &str)]| request("PUT", headers).replace();
        let tag = "0b".repeat(32);
        assert_eq!(replace(&[]), Replace::Always);
        assert_eq!(request("LOCK", &[]).replace(), Replace::Never);
        assert_eq!(replace(&[("if-none-match", "*")]), Replace::Never);
        assert_eq!(replace(&[("if-match", "*")]), Replace::Existing);
        let expected = Replace::Matching(tag.parse().expect("a checksum"));
        assert_eq!(replace(&[("if-match", &format!("\"{tag}\""))]), expected);
    }

    #[test]
    fn a_tree_is_taken_whole_where_it_is_meant_whole() {
        let (a, b) = (Spot::of_url("/storage/dav/docs/a").expect("a spot"), Spot::of_url("/storage/dav/docs/b"));
        let b = b.expect("a spot");
        let to_b = ("destination", "https://cloud.example/storage/dav/docs/b");
        assert!(request("DELETE", &[]).takes_whole(&a) && !request("DELETE", &[("depth", "0")]).takes_whole(&a));
        assert!(!request("PROPFIND", &[("depth", "1")]).takes_whole(&a));
        let shallow = request("COPY", &[to_b, ("depth", "0")]);
        assert!(!shallow.takes_whole(&a) && shallow.takes_whole(&b) && shallow.is_destination(&b));
        assert!(request("MOVE", &[to_b]).takes_whole(&a));
    }

    #[test]
    fn the_last_refusal_is_kept_but_for_what_is_not_there() {
        let request = request("PUT", &[]);
        assert_eq!(request.refuse(Error::not_found("no such file")), FsError::NotFound);
        assert!(request.refusal().is_none());
        assert_eq!(request.refuse(Error::conflict("no")), FsError::GeneralFailure);
        assert_eq!(request.refusal().map(|error| error.status()), Some(StatusCode::CONFLICT));
        assert!(request.refusal().is_none());
    }

    #[test]
    fn nobody_changes_anything() {
        let refused = request("PUT", &[]).actor("write", None).expect_err("nobody");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
}
