//! What an API token may do.

use std::collections::{BTreeMap, BTreeSet};

use edd_proto::UserId;
use serde::{Deserialize, Serialize};

use crate::auth::model::Invalid;

/// Resources that one token names, and actions on one of them.
const MAX_RESOURCES: usize = 64;
const MAX_ACTIONS: usize = 16;

/// From `<service>.<user_id>[.<resource>[.<id>]]` to the actions that are allowed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Scopes for a token of `owner`.
    ///
    /// # Errors
    /// There are none, or too many, one is misspelt, or is about what belongs to another user.
    pub fn parse(scopes: BTreeMap<String, BTreeSet<String>>, owner: UserId) -> Result<Self, Invalid> {
        let refuse = |rule| Err(Invalid { field: "scopes", rule });
        if scopes.is_empty() || scopes.len() > MAX_RESOURCES {
            return refuse("1 to 64 of them: a token without any may do nothing");
        }
        for (resource, actions) in &scopes {
            let parts: Vec<_> = resource.split('.').collect();
            if !(2..=4).contains(&parts.len()) || !parts.iter().all(|part| is_word(part)) {
                return refuse("write <service>.<user_id>, then perhaps .<resource>, then perhaps .<id>");
            }
            if parts[1] != owner.as_str() {
                return refuse("the second part is your own user_id: a token acts for nobody else");
            }
            if actions.is_empty() || actions.len() > MAX_ACTIONS || !actions.iter().all(|action| is_word(action)) {
                return refuse("each has 1 to 16 actions, such as \"read\"");
            }
        }
        Ok(Self(scopes))
    }

    /// The resources, each with its actions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.0.iter().map(|(resource, actions)| (resource.as_str(), actions.iter().map(String::as_str)))
    }
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "V1StGXR8_Z5jdHi6B-myT";

    fn parse(scopes: &[(&str, &[&str])]) -> Result<Scopes, Invalid> {
        let actions = |actions: &[&str]| actions.iter().map(|action| (*action).to_owned()).collect();
        let scopes = scopes.iter().map(|(resource, list)| ((*resource).to_owned(), actions(list)));
        Scopes::parse(scopes.collect(), ANN.parse().expect("an id"))
    }

    #[test]
    fn scopes_name_what_their_owner_has() {
        for resource in ["compute", "storage.V1StGXR8_Z5jdHi6B-myT.namespaces.photos.x", "", ".", "compute."] {
            assert!(parse(&[(resource, &["read"])]).is_err(), "{resource}");
        }
        for tail in ["", ".containers", ".containers.abc123defg"] {
            assert!(parse(&[(&format!("compute.{ANN}{tail}"), &["read", "write"])]).is_ok(), "{tail}");
        }
        let another = parse(&[("compute.V1StGXR8_Z5jdHi6B-myU", &["read"])]).expect_err("another user's");
        assert!(another.rule.contains("your own"), "{another}");
    }

    #[test]
    fn scopes_are_bounded_and_say_what_is_allowed() {
        let own = format!("compute.{ANN}");
        assert!(parse(&[]).is_err());
        assert!(parse(&[(&own, &[])]).is_err());
        assert!(parse(&[(&own, &["read it"])]).is_err());
        let many: Vec<_> = (0..65).map(|n| format!("{own}.r{n}")).collect();
        let many: Vec<(&str, &[&str])> = many.iter().map(|r| (r.as_str(), &["read"] as &[&str])).collect();
        assert!(parse(&many[..64]).is_ok());
        assert!(parse(&many).is_err());
    }

    #[test]
    fn scopes_are_stored_as_they_are_written() {
        let scopes = parse(&[(&format!("compute.{ANN}"), &["write", "read"])]).expect("scopes");
        let json = serde_json::to_string(&scopes).expect("json");
        assert_eq!(json, format!(r#"{{"compute.{ANN}":["read","write"]}}"#));
        assert_eq!(serde_json::from_str::<Scopes>(&json).expect("scopes"), scopes);
    }
}
