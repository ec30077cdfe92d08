//! Addresses that try keys until one fits, or speak no SSH, are not talked to for a while, as OpenSSH's
//! `PerSourcePenalties` has it; and none holds more than its share of connections that have yet to authenticate.
//!
//! What counts is a connection that has ended without a login. An agent with ten keys that fit elsewhere asks about
//! each and signs with none, and whoever gets in at last is forgiven what came before.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edd_events::clock::{Clock, Micros, micros};

use crate::ssh::admission::{Outcome, Refusal};

/// When an address is not talked to.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections of an address that have not authenticated yet.
    pub max_unauthenticated: u32,
    /// Signed keys and passwords of one connection that may be wrong.
    pub free_attempts: u32,
    /// For a connection that had more than that.
    pub for_guessing: Duration,
    /// For one that spoke no SSH.
    pub for_garbage: Duration,
    /// Penalties add up; below this they are not enforced.
    pub enforced_from: Duration,
    pub longest: Duration,
    /// Addresses remembered; of more, those whose penalty ends first are forgotten.
    pub max_addresses: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_unauthenticated: 64,
            free_attempts: 6,
            for_guessing: Duration::from_secs(15),
            for_garbage: Duration::from_secs(5),
            enforced_from: Duration::from_secs(15),
            longest: Duration::from_secs(600),
            max_addresses: 65_536,
        }
    }
}

/// Who shares a fate: an IPv4 address, or the IPv6 network of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
            v4 => v4,
        })
    }
}

/// The addresses that misbehaved, and those that are about to authenticate.
#[derive(Debug)]
pub struct Penalties {
    config: Config,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// As many as there are connections.
    unauthenticated: HashMap<Source, u32>,
    penalties: HashMap<Source, Penalty>,
    by_end: BTreeSet<(Micros, Source)>,
}

#[derive(Clone, Copy, Debug)]
struct Penalty {
    until: Micros,
    /// It was once as long as it takes to be enforced.
    is_enforced: bool,
}

impl Penalties {
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, state: Mutex::default() }
    }

    /// Counts a connection that has not authenticated yet, until [`Penalties::settled`].
    ///
    /// # Errors
    /// The address is not talked to.
    pub fn arrived(&self, peer: IpAddr) -> Result<(), Refusal> {
        let (source, now) = (Source::of(peer), self.clock.now());
        let mut state = self.state();
        state.expire(now);
        if state.penalties.get(&source).is_some_and(|penalty| penalty.is_enforced) {
            return Err(Refusal::new("penalized", "too many failed logins from this address; try again later"));
        }
        let open = state.unauthenticated.entry(source).or_default();
        if *open >= self.config.max_unauthenticated {
            let message = "too many connections from this address are about to log in; try again in a moment";
            return Err(Refusal::new("too_many_unauthenticated", message));
        }
        *open += 1;
        Ok(())
    }

    /// What came of a connection that had arrived.
    pub fn settled(&self, peer: IpAddr, outcome: Outcome) {
        let (source, now) = (Source::of(peer), self.clock.now());
        let mut state = self.state();
        state.leave(source);
        let penalty = match outcome {
            Outcome::Unauthenticated { keys, passwords, .. }
                if keys.saturating_add(passwords) > self.config.free_attempts =>
            {
                self.config.for_guessing
            }
            Outcome::Garbage => self.config.for_garbage,
            Outcome::Admitted | Outcome::Unauthenticated { .. } => return,
        };
        state.punish(source, now, penalty, &self.config);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave(&mut self, source: Source) {
        if let Some(open) = self.unauthenticated.get_mut(&source) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.unauthenticated.remove(&source);
            }
        }
    }

    fn punish(&mut self, source: Source, now: Micros, penalty: Duration, config: &Config) {
        self.expire(now);
        let known = self.penalties.get(&source).copied();
        let begin = known.map_or(now, |known| known.until);
        let until = (begin + micros(penalty)).min(now + micros(config.longest));
        let is_enforced = known.is_some_and(|known| known.is_enforced) || until - now >= micros(config.enforced_from);
        if let Some(known) = known {
            self.by_end.remove(&(known.until, source));
        } else if self.penalties.len() >= config.max_addresses
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.penalties.remove(&first);
        }
        self.penalties.insert(source, Penalty { until, is_enforced });
        self.by_end.insert((until, source));
    }

    fn expire(&mut self, now: Micros) {
        while let Some((until, source)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.by_end.remove(&(until, source));
            self.penalties.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use edd_events::clock::ManualClock;

    use super::*;

    struct Scene {
        penalties: Penalties,
        clock: ManualClock,
    }

    const SOMEBODY: &str = "192.0.2.7";

    fn scene(config: Config) -> Scene {
        let clock = ManualClock::at(1_000_000);
        Scene { penalties: Penalties::new(config, Arc::new(clock.clone())), clock }
    }

    impl Scene {
        fn comes(&self, peer: &str) -> Result<(), &'static str> {
            self.penalties.arrived(peer.parse().unwrap()).map_err(|refusal| refusal.reason)
        }

        /// A connection that is let in and ends like this.
        fn visit(&self, peer: &str, outcome: Outcome) {
            self.comes(peer).unwrap();
            self.penalties.settled(peer.parse().unwrap(), outcome);
        }

        fn is_let_in(&self, peer: &str) -> bool {
            self.comes(peer).map(|()| self.penalties.settled(peer.parse().unwrap(), wrong(0))).is_ok()
        }
    }

    fn wrong(keys: u32) -> Outcome {
        Outcome::Unauthenticated { keys, passwords: 0, timed_out: false }
    }

    #[test]
    fn who_guesses_is_kept_out_for_a_while_and_nobody_else_is() {
        let scene = scene(Config::default());
        scene.visit(SOMEBODY, wrong(7));
        assert_eq!(scene.comes(SOMEBODY), Err("penalized"));
        assert!(scene.is_let_in("192.0.2.8"));
        scene.clock.advance(Duration::from_secs(15));
        assert!(scene.is_let_in(SOMEBODY));
        scene.visit(SOMEBODY, Outcome::Unauthenticated { keys: 3, passwords: 4, timed_out: true });
        assert!(!scene.is_let_in(SOMEBODY), "passwords count as keys do");
    }

    #[test]
    fn an_agent_with_many_keys_is_no_guesser() {
        let scene = scene(Config::default());
        for _ in 0..100 {
            // It asked about ten keys and signed with none, with a few, or with the right one after many.
            scene.visit(SOMEBODY, wrong(0));
            scene.visit(SOMEBODY, wrong(6));
            scene.visit(SOMEBODY, Outcome::Admitted);
        }
        assert!(scene.penalties.state().penalties.is_empty());
    }

    #[test]
    fn small_penalties_add_up_and_have_an_end() {
        let scene = scene(Config::default());
        for _ in 0..2 {
            scene.visit(SOMEBODY, Outcome::Garbage);
        }
        scene.visit(SOMEBODY, Outcome::Garbage);
        assert_eq!(scene.comes(SOMEBODY), Err("penalized"), "5 s three times");
        scene.clock.advance(Duration::from_secs(15));
        assert!(scene.is_let_in(SOMEBODY));
        let peer = SOMEBODY.parse().unwrap();
        // Many that were let in before the first of them ended.
        (0..1000).for_each(|_| scene.penalties.settled(peer, wrong(9)));
        scene.clock.advance(Duration::from_secs(599));
        assert!(!scene.is_let_in(SOMEBODY));
        scene.clock.advance(Duration::from_secs(1));
        assert!(scene.is_let_in(SOMEBODY));
    }

    #[test]
    fn garbage_now_and_then_costs_nothing() {
        let scene = scene(Config::default());
        for _ in 0..100 {
            scene.visit(SOMEBODY, Outcome::Garbage);
            scene.clock.advance(Duration::from_secs(5));
        }
    }

    #[test]
    fn a_network_of_one_machine_shares_its_fate() {
        let scene = scene(Config::default());
        scene.visit("2001:db8:1:2::1", wrong(9));
        assert!(!scene.is_let_in("2001:db8:1:2:ffff::7"));
        assert!(scene.is_let_in("2001:db8:1:3::1"));
        scene.visit("::ffff:192.0.2.7", wrong(9));
        assert!(!scene.is_let_in(SOMEBODY));
        assert!(scene.is_let_in("192.0.2.6"));
    }

    #[test]
    fn an_address_has_its_share_of_connections_that_have_not_authenticated() {
        let scene = scene(Config { max_unauthenticated: 2, ..Config::default() });
        assert_eq!([1, 2, 3].map(|_| scene.comes(SOMEBODY)), [Ok(()), Ok(()), Err("too_many_unauthenticated")]);
        assert_eq!(scene.comes("192.0.2.8"), Ok(()));
        scene.penalties.settled(SOMEBODY.parse().unwrap(), Outcome::Admitted);
        assert_eq!([1, 2].map(|_| scene.comes(SOMEBODY)), [Ok(()), Err("too_many_unauthenticated")]);
        for peer in [SOMEBODY, SOMEBODY, "192.0.2.8"] {
            scene.penalties.settled(peer.parse().unwrap(), Outcome::Admitted);
        }
        assert!(scene.penalties.state().unauthenticated.is_empty());
    }

    #[test]
    fn a_flood_of_addresses_costs_no_memory() {
        let scene = scene(Config { max_addresses: 100, ..Config::default() });
        for number in 0..1000u32 {
            scene.clock.advance(Duration::from_millis(1));
            scene.visit(&std::net::Ipv4Addr::from_bits(number).to_string(), wrong(9));
        }
        let state = scene.penalties.state();
        assert_eq!((state.penalties.len(), state.by_end.len()), (100, 100));
        drop(state);
        assert!(!scene.is_let_in("0.0.3.231"), "the last");
        assert!(scene.is_let_in("0.0.0.0"), "the first was forgotten");
        scene.clock.advance(Duration::from_secs(600));
        assert!(scene.is_let_in("0.0.3.231"));
        let state = scene.penalties.state();
        assert_eq!((state.penalties.len(), state.by_end.len()), (0, 0));
    }
}
