//! What the compute service is about, as pure types. Text from outside becomes one of these at the edge and is checked
//! nowhere else.

mod container;
mod ingress;
mod public_key;
mod wanted;

pub use container::{Access, Container, Status, Telling};
pub(crate) use ingress::protocol_word;
pub use ingress::{Rule, RuleState, WantedRule, place};
pub use public_key::{PublicKey, SshKey};
pub use wanted::{
    ContainerName, InstanceType, MAX_IDLE_TIMEOUT_S, MIN_IDLE_TIMEOUT_S, MountPaths, Wanted, WantedContainer,
};

/// Input that cannot be accepted: which, and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    pub field: &'static str,
    pub rule: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }
}
