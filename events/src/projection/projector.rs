//! A projection as a consumer's handler.

use std::sync::Arc;

use async_trait::async_trait;
use edd_proto::covers;
use sqlx::AnyConnection;

use crate::clock::Clock;
use crate::consumer::{Failure, Handler};
use crate::message::Message;
use crate::projection::{Projection, Table};

/// Writes what messages say into the projection's table.
#[derive(Clone, Debug)]
pub struct Projector {
    projection: Arc<dyn Projection>,
    table: Table,
    clock: Arc<dyn Clock>,
}

impl Projector {
    pub fn new(projection: Arc<dyn Projection>, clock: Arc<dyn Clock>) -> Self {
        let table = Table::live(projection.shape());
        Self { projection, table, clock }
    }
}

#[async_trait]
impl Handler for Projector {
    /// Messages of other subjects say nothing to it.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        if !self.projection.shape().filters.iter().any(|filter| covers(filter, &message.subject)) {
            return Ok(());
        }
        let Some(entry) = self.projection.read(message)? else { return Ok(()) };
        let missing = entry.key.clone();
        let Some(entry) = self.table.resolve(connection, entry).await? else {
            // The event that tells the key may be on its way, or a snapshot.
            return Err(Failure::Transient(format!("{} has no row for {missing:?} yet", self.table.name())));
        };
        if !self.table.shape().fits(&entry.fields) {
            return Err(Failure::Permanent(format!("{entry:?} is no row of {}", self.table.name())));
        }
        self.table.write(connection, &[entry], None, self.clock.now()).await?;
        Ok(())
    }
}
