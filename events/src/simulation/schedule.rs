//! One schedule: a storm, and the calm after it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edd_proto::{CONSUMERS, Consumer as Spec, Stream};

use super::arena::Arena;
use super::auth::Auth;
use super::broker::Broker;
use super::client::Link;
use super::ledger::Ledger;
use super::plan::{Plan, Step};
use super::service::{Kind, Service, Surroundings};
use super::verdict;
use super::world::{Job, Progress, World};
use crate::clock::Clock;

/// The streams that users and namespaces go to.
const OWNED: [Stream; 2] = [Stream::AUTH, Stream::SFS];
const NAMESPACES: Spec = Spec { name: "compute-service", stream: Stream::SFS, filters: Stream::SFS.subjects };
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Turns of everybody after which there is calm, or never.
const MOST_TURNS: u32 = 20;
/// Longer than the wait for an answer, and than most pauses between two tries.
const TURN: Duration = Duration::from_secs(31);
/// After this a replay that died is known to have.
const LONGEST_LEASE: Duration = Duration::from_secs(121);

pub(super) struct Schedule {
    plan: Plan,
    around: Surroundings,
    /// The owner's two processes, on one database; those that project; and one that only reacts.
    services: Vec<Service>,
    jobs: BTreeMap<(usize, Kind), Job>,
    pub depth: usize,
}

impl Schedule {
    pub async fn new(world: Arc<World>, arena: &Arena) -> Self {
        let plan = Plan::draw(&world);
        let [owner, users, reactions] = arena.stores(&world).await;
        let ledger = Arc::<Ledger>::default();
        let broker = Broker::new(Arc::new(world.clock.clone()), plan.window);
        let auth = Auth::new(world.clone(), ledger.clone(), owner.clone(), &plan);
        let around = Surroundings { world, broker, ledger, auth };
        let services = vec![
            Service::new(&around, &owner, &OWNED, &[], false),
            Service::new(&around, &owner, &OWNED, &[], false),
            Service::new(&around, &users, &[Stream::DLQ], &[CONSUMERS[0]], true),
            Service::new(&around, &reactions, &[Stream::DLQ], &[CONSUMERS[1], NAMESPACES], false),
        ];
        Self { plan, around, services, jobs: BTreeMap::new(), depth: 0 }
    }

    /// Runs all of it.
    ///
    /// # Errors
    /// What must hold does not.
    pub async fn run(&mut self) -> Result<(), String> {
        if self.plan.is_ready {
            self.ensure_all().await;
            self.synchronize().await?;
        }
        self.around.world.tell(format!("{:?}", self.plan));
        self.around.world.begin_storm(self.plan.rates);
        for depth in 1..=self.plan.length {
            self.depth = depth;
            let step = self.plan.next(&self.around.world);
            let said = self.step(step).await;
            self.around.world.tell(format!("{depth} {step:?}: {said}"));
            self.around.world.check()?;
            self.around.ledger.grow_old(self.around.world.clock.now(), Stream::AUTH.retention());
        }
        self.calm_down().await;
        self.settle().await?;
        if verdict::dead_letters(&self.services, &self.around).await? > 0 {
            self.around.ledger.mend();
            for service in &self.services {
                self.around.world.tell(format!("requeued: {}", service.requeue().await));
            }
            self.settle().await?;
        }
        // A lease of a clock that was set back since is over now, and might not be later.
        self.synchronize().await?;
        self.around.world.clock.advance(LONGEST_LEASE);
        self.synchronize().await?;
        self.around.world.check()?;
        verdict::effects(&self.services, &self.around).await?;
        verdict::projection(&self.services, &self.around).await
    }

    async fn step(&mut self, step: Step) -> String {
        let (world, broker) = (self.around.world.clone(), self.around.broker.clone());
        let stream = [Stream::AUTH, Stream::SFS, Stream::DLQ][world.below(3)].name;
        match step {
            Step::Write => self.around.auth.write().await,
            Step::Work => self.work().await,
            Step::Wait => {
                let millis = [100, 1000, 6000, 31_000, 61_000, 3_600_000][world.below(6)];
                world.clock.advance(Duration::from_millis(millis));
                format!("{millis} ms")
            }
            Step::JumpBack => {
                let seconds = [1, 60, 3600][world.below(3)];
                world.clock.set(world.clock.now() - seconds * 1_000_000);
                format!("{seconds} s")
            }
            Step::Sleep => {
                world.clock.advance(8 * DAY);
                "8 days".to_owned()
            }
            Step::Link => {
                let (process, link) = (world.below(self.services.len()), Link::ALL[world.below(Link::ALL.len())]);
                self.services[process].client.set_link(link);
                format!("{process} is {link:?}")
            }
            Step::Database => {
                let (process, is_away) = (world.below(self.services.len()), world.chance(50));
                self.services[process].store.switch.set_away(is_away);
                format!("{process} is {}", if is_away { "away" } else { "there" })
            }
            Step::Kill => {
                let process = world.below(self.services.len());
                self.kill(process).await;
                format!("{process}")
            }
            Step::Loss => {
                let stream = world.chance(50).then_some(stream);
                broker.lose(stream);
                format!("{stream:?}")
            }
            Step::LostTail => {
                let count = 1 + world.below(5) as u64;
                broker.lose_tail(stream, count);
                format!("{count} of {stream}")
            }
            Step::BackUp => {
                broker.back_up();
                String::new()
            }
            Step::Restore => {
                broker.restore();
                String::new()
            }
            Step::Expire => {
                let count = 1 + world.below(5) as u64;
                broker.expire(stream, count);
                format!("{count} of {stream}")
            }
            Step::Requeue => self.services[2 + world.below(2)].requeue().await,
        }
    }

    /// One process goes on with a job, or begins it.
    async fn work(&mut self) -> String {
        let process = self.around.world.below(self.services.len());
        let kinds = self.services[process].jobs();
        let kind = kinds[self.around.world.below(kinds.len())];
        let (began, mut job) = match self.jobs.remove(&(process, kind)) {
            Some(job) => ("goes on with", job),
            None => ("begins", self.services[process].begin(kind)),
        };
        let progress = self.around.world.advance(&mut job).await;
        match progress {
            Progress::Paused => drop(self.jobs.insert((process, kind), job)),
            Progress::Died => {
                drop(job);
                self.kill(process).await;
            }
            Progress::Ended(_) => {}
        }
        format!("{process} {began} {kind:?}: {progress:?}")
    }

    async fn kill(&mut self, process: usize) {
        self.jobs.retain(|(of, _), _| *of != process);
        self.services[process].start();
        if let Err(error) = self.services[process].note_waiting().await {
            self.around.world.violate(format!("the ledger cannot be kept: {error}"));
        }
    }

    /// Everything works again, and what had begun is finished.
    async fn calm_down(&mut self) {
        let world = &self.around.world;
        world.end_storm();
        for service in &self.services {
            service.client.set_link(Link::Up);
            service.store.switch.set_away(false);
        }
        for ((process, kind), mut job) in std::mem::take(&mut self.jobs) {
            // It would wait for consumers that stand still.
            if kind == Kind::Reconcile {
                continue;
            }
            while let Progress::Paused = world.advance(&mut job).await {}
            world.tell(format!("{process} has ended {kind:?}"));
        }
    }

    async fn ensure_all(&self) {
        for service in &self.services {
            self.finish(service, Kind::Ensure).await;
        }
    }

    async fn finish(&self, service: &Service, kind: Kind) -> String {
        let said = service.begin(kind).await;
        self.around.world.tell(format!("  {:?} {kind:?}: {said}", service.specs.first().map(|spec| spec.name)));
        said
    }

    /// Everybody has turns until there is nothing left to do.
    async fn settle(&self) -> Result<(), String> {
        let (world, mut last) = (&self.around.world, String::new());
        for turn in 0..MOST_TURNS {
            self.ensure_all().await;
            // The owner's second process has nothing to add.
            for service in self.services.iter().filter(|service| !std::ptr::eq(*service, &self.services[1])) {
                while self.finish(service, Kind::Relay).await != IDLE_RELAY {
                    world.check()?;
                }
            }
            for service in &self.services {
                for index in 0..service.specs.len() {
                    while self.finish(service, Kind::Consume(index)).await != "[]" {
                        world.check()?;
                    }
                }
            }
            let left = verdict::left_to_do(&self.services, &self.around).await?;
            let Some(what) = left else { return Ok(()) };
            world.tell(format!("turn {turn}: {what}"));
            last = what;
            world.clock.advance(TURN);
        }
        Err(format!("after {MOST_TURNS} turns there is still something to do: {last}"))
    }

    async fn synchronize(&self) -> Result<(), String> {
        for synchronizer in self.services.iter().filter_map(Service::synchronizer) {
            synchronizer.round().await.map_err(|error| format!("no snapshot in calm weather: {error}"))?;
        }
        Ok(())
    }
}

const IDLE_RELAY: &str = "Round { published: 0, refilled: 0 }";
