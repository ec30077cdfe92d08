//! A handler that records what took effect, in which order, and fails as the schedule wants it to.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::Consumer as Spec;
use sqlx::AnyConnection;

use super::ledger::{Durable, Ledger, Life, Script, durable};
use super::plan::Fault;
use super::world::World;
use crate::consumer::{Failure, Handler, MAX_ATTEMPTS};
use crate::database::Step;
use crate::message::Message;

/// What a slow handler takes: two of them are too much for one transaction.
const SLOW: Duration = Duration::from_millis(6);

pub(super) const EFFECTS: Step = Step {
    version: 1001,
    name: "effects",
    sql: "CREATE TABLE effects (id {serial}, stream TEXT NOT NULL, event_id TEXT NOT NULL, life BIGINT NOT NULL)",
};

#[derive(Debug)]
pub(super) struct Reactor {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    consumer: Durable,
    life: Life,
}

impl Reactor {
    pub fn new(world: Arc<World>, ledger: Arc<Ledger>, spec: &Spec, life: Life) -> Arc<Self> {
        Arc::new(Self { world, ledger, consumer: durable(spec), life })
    }

    fn draw(&self, event_id: &str) -> Script {
        let world = &self.world;
        if world.strikes(Fault::Poison) {
            self.ledger.allow_death(self.consumer, event_id);
            return Script::Poisoned;
        }
        if world.strikes(Fault::Transient) {
            let fails = 1 + world.below(MAX_ATTEMPTS as usize + 1) as u32;
            if i64::from(fails) >= MAX_ATTEMPTS {
                self.ledger.allow_death(self.consumer, event_id);
            }
            return Script::Fails(fails);
        }
        if world.strikes(Fault::Dependency) {
            return Script::Waits(1 + world.below(2 * MAX_ATTEMPTS as usize) as u32);
        }
        Script::Fine
    }

    /// What must hold whenever an event takes effect.
    async fn check(&self, message: &Message, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let Message { event_id, entity, version, .. } = message;
        let (name, stream) = self.consumer;
        if !self.ledger.has(event_id) {
            self.world.violate(format!("{name} handles {event_id} of {entity}, which nobody committed"));
        }
        let earlier = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM retries WHERE consumer = $1 AND stream = $2 AND entity = $3 AND version < $4 \
             AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE consumer = $1 AND event_id = $5)",
        );
        let earlier = earlier.bind(name).bind(stream).bind(entity).bind(version).bind(event_id);
        if earlier.fetch_one(connection).await? > 0 {
            self.world.violate(format!("{name} handles {entity} v{version} while an earlier event of it waits"));
        }
        Ok(())
    }
}

#[async_trait]
impl Handler for Reactor {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let event_id = &message.event_id;
        let script = self.ledger.script(self.consumer, event_id, || self.draw(event_id));
        let (name, stream) = self.consumer;
        let Message { entity, version, .. } = message;
        self.world.tell(format!("    {name} on {stream}: {entity} v{version}: {script:?}"));
        match script {
            Script::Fails(_) => return Err(Failure::Transient("it fails".to_owned())),
            Script::Waits(_) => return Err(Failure::DependencyDown("something is away".to_owned())),
            Script::Poisoned => return Err(Failure::Permanent("it is poison".to_owned())),
            Script::Fine => {}
        }
        self.check(message, connection).await?;
        let insert = sqlx::query("INSERT INTO effects (stream, event_id, life) VALUES ($1, $2, $3)");
        insert.bind(stream).bind(event_id).bind(i64::from(self.life)).execute(connection).await?;
        if self.world.strikes(Fault::Slow) {
            self.world.clock.advance(SLOW);
        }
        if self.world.strikes(Fault::Death) {
            self.world.die().await;
        }
        Ok(())
    }
}
