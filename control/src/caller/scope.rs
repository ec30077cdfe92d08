//! What an API token may do: actions on what lies under a resource.

use std::sync::Arc;

use edd_proto::UserId;
use edd_proto::auth::Scope;

/// Scopes of one token, actions of one scope.
const MAX_SCOPES: usize = 64;
const MAX_ACTIONS: usize = 64;

/// The scopes of an API token, `<service>.<user_id>[.<resource>[.<id>]]` with the actions that are allowed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Arc<[Rule]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    resource: Box<str>,
    actions: Box<[Box<str>]>,
}

/// More scopes than any token has, or more actions in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_SCOPES} scopes, or more than {MAX_ACTIONS} actions in one")]
pub struct TooMany;

impl Scopes {
    /// The scopes as the auth service tells them. None at all allow nothing.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn new(scopes: Vec<Scope>) -> Result<Self, TooMany> {
        if scopes.len() > MAX_SCOPES || scopes.iter().any(|scope| scope.actions.len() > MAX_ACTIONS) {
            return Err(TooMany);
        }
        let rule = |scope: Scope| Rule {
            resource: scope.resource.into(),
            actions: scope.actions.into_iter().map(String::into_boxed_str).collect(),
        };
        Ok(Self(scopes.into_iter().map(rule).collect()))
    }

    /// Whether one of them lets `action` be done to `path` of `user`'s at `service`. A scope covers what lies under it,
    /// in whole parts: `compute.<user>.containers` covers the container `compute.<user>.containers.<id>`.
    pub(super) fn allow(&self, service: &str, user: UserId, action: &str, path: &[&str]) -> bool {
        self.0.iter().any(|rule| {
            let mut wanted = [service, user.as_str()].into_iter().chain(path.iter().copied());
            // Fewer parts than a user's would cover what belongs to others.
            rule.resource.split('.').count() >= 2
                && rule.resource.split('.').all(|part| wanted.next() == Some(part))
                && rule.actions.iter().any(|allowed| **allowed == *action)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";
    const BOB: &str = "W1StGXR8_Z5jdHi6B-myT";

    fn scopes(list: &[(&str, &[&str])]) -> Scopes {
        let scope = |(resource, actions): &(&str, &[&str])| Scope {
            resource: resource.replace("ann", ANN),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        };
        Scopes::new(list.iter().map(scope).collect()).unwrap()
    }

    #[test]
    fn a_scope_covers_what_lies_under_it_and_nothing_else() {
        let allow = |scope: &str, service: &str, path: &[&str]| {
            scopes(&[(scope, &["read"])]).allow(service, ANN.parse().unwrap(), "read", path)
        };
        let table: [(&str, &str, &[&str], bool); 16] = [
            ("compute.ann", "compute", &[], true),
            ("compute.ann", "compute", &["containers"], true),
            ("compute.ann", "compute", &["containers", "abc"], true),
            ("compute.ann", "storage", &[], false),
            ("compute.ann.containers", "compute", &["containers", "abc"], true),
            ("compute.ann.containers", "compute", &["containers"], true),
            ("compute.ann.containers", "compute", &[], false),
            ("compute.ann.containers", "compute", &["containers2"], false),
            ("compute.ann.containers", "compute", &["sshkeys"], false),
            ("compute.ann.containers.abc", "compute", &["containers", "abc"], true),
            ("compute.ann.containers.abc", "compute", &["containers", "abcd"], false),
            ("compute.ann.containers.abc", "compute", &["containers"], false),
            ("compute", "compute", &[], false),
            ("", "", &[], false),
            ("compute.ann.", "compute", &["containers"], false),
            ("compute.*", "compute", &[], false),
        ];
        for (scope, service, path, expected) in table {
            assert_eq!(allow(scope, service, path), expected, "{scope} for {service} {path:?}");
        }
    }

    #[test]
    fn actions_and_owners_are_exact() {
        let scopes = scopes(&[("compute.ann", &["read", "start"]), ("storage.ann", &["write"])]);
        let (ann, bob) = (ANN.parse().unwrap(), BOB.parse().unwrap());
        assert!(scopes.allow("compute", ann, "start", &["containers", "a"]));
        assert!(!scopes.allow("compute", ann, "write", &[]), "another service's action");
        assert!(!scopes.allow("compute", ann, "rea", &[]) && !scopes.allow("compute", ann, "", &[]));
        assert!(!scopes.allow("compute", bob, "read", &[]));
        assert!(!self::scopes(&[]).allow("compute", ann, "read", &[]));
    }

    #[test]
    fn scopes_are_bounded() {
        assert_eq!(Scopes::new(vec![Scope::default(); MAX_SCOPES + 1]), Err(TooMany));
        let actions = vec![String::new(); MAX_ACTIONS + 1];
        assert_eq!(Scopes::new(vec![Scope { resource: String::new(), actions }]), Err(TooMany));
    }
}
