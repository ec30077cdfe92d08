//! Who asks, as far as it decides what they see and change.

use crate::caller::{Admin, Caller, Permit};

use super::Owner;

/// Somebody who is signed in and may do what they ask for to what is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// As the owner of what they make.
    pub owner: Owner,
    /// Proof that they may do it to what is others', too.
    pub admin: Option<Admin>,
}

impl Actor {
    /// `permit` is what `caller` was found to be allowed.
    pub fn new(caller: &Caller, permit: Permit) -> Self {
        Self { owner: Owner { user: permit.owner(), number: caller.number }, admin: caller.require_admin().ok() }
    }

    /// Whether what belongs to `owner` is theirs to change.
    pub fn commands(&self, owner: Option<Owner>) -> bool {
        self.admin.is_some() || owner.is_some_and(|owner| owner.user == self.owner.user)
    }
}

/// Whoever reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// Without credentials.
    Anybody,
    User(Actor),
}

impl From<Actor> for Visitor {
    fn from(actor: Actor) -> Self {
        Self::User(actor)
    }
}
