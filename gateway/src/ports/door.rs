//! An open port, as its connections see it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::table::ports::PortRule;

/// Connections that one raw rule may have open at once.
pub const MAX_RAW_CONNECTIONS: usize = 1024;

/// An open port.
#[derive(Debug)]
pub struct Door {
    pub port: u16,
    /// Its connections; a part of the gateway's.
    pub drain: Drain,
    /// The raw rule that has it, if one does.
    tenure: Mutex<Option<Arc<Tenure>>>,
}

/// The time for which a raw rule has a port.
#[derive(Debug)]
pub struct Tenure {
    rule: PortRule,
    /// Cancelled when what goes on has to end: the rule is gone, and so is the time to drain.
    pub over: CancellationToken,
    open: AtomicUsize,
}

/// A connection in a [`Tenure`]. Makes room for another one when it is dropped.
#[derive(Debug)]
pub struct Tenant(pub Arc<Tenure>);

impl Door {
    pub fn new(port: u16, drain: Drain) -> Self {
        Self { port, drain, tenure: Mutex::default() }
    }

    /// Begins a tenure if `rule` is another one than before. The one that ended, if one did.
    pub fn let_to(&self, rule: Option<PortRule>) -> Option<Arc<Tenure>> {
        let mut tenure = self.tenure.lock().unwrap_or_else(PoisonError::into_inner);
        if tenure.as_ref().map(|tenure| tenure.rule) == rule {
            return None;
        }
        let next =
            rule.map(|rule| Arc::new(Tenure { rule, over: CancellationToken::new(), open: AtomicUsize::new(0) }));
        std::mem::replace(&mut *tenure, next)
    }

    /// Lets a connection in for `rule`. None: it has no room for more, or not any more the port.
    pub fn enter(&self, rule: &PortRule) -> Option<Tenant> {
        let tenure = self.tenure.lock().unwrap_or_else(PoisonError::into_inner);
        let tenure = tenure.as_ref().filter(|tenure| tenure.rule == *rule)?;
        let room = |open| (open < MAX_RAW_CONNECTIONS).then_some(open + 1);
        tenure.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Tenant(Arc::clone(tenure)))
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ports::PortProtocol;

    fn rule(target_port: u16) -> PortRule {
        PortRule { container: "abcdefghij".parse().unwrap(), port: 8000, target_port, protocol: PortProtocol::Tcp }
    }

    #[test]
    fn a_rule_has_a_port_for_a_time_and_room_for_so_many() {
        let door = Door::new(8000, Drain::default());
        assert!(door.enter(&rule(1)).is_none());
        assert!(door.let_to(Some(rule(1))).is_none());
        let mut inside: Vec<_> = (0..MAX_RAW_CONNECTIONS).map(|_| door.enter(&rule(1)).unwrap()).collect();
        assert!(door.enter(&rule(1)).is_none());
        drop(inside.pop());
        assert!(door.enter(&rule(1)).is_some());
        assert!(door.let_to(Some(rule(1))).is_none(), "the same one goes on");
        let ended = door.let_to(Some(rule(2))).unwrap();
        assert!(Arc::ptr_eq(&ended, &inside[0].0));
        assert!(door.enter(&rule(1)).is_none() && door.enter(&rule(2)).is_some());
    }
}
