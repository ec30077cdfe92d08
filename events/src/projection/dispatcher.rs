//! Several handlers behind one durable consumer.

use std::sync::Arc;

use async_trait::async_trait;
use edd_proto::covers;
use sqlx::AnyConnection;

use crate::consumer::{Failure, Handler};
use crate::message::Message;

/// Hands each message to every handler that wants its subject, in one transaction: either all effects of a message
/// are there or none. A message that nobody wants is done with.
#[derive(Clone, Debug, Default)]
pub struct Dispatcher {
    handlers: Vec<(&'static [&'static str], Arc<dyn Handler>)>,
}

impl Dispatcher {
    /// Adds a handler for the subjects of `filters`; those added before come first.
    #[must_use]
    pub fn with(mut self, filters: &'static [&'static str], handler: Arc<dyn Handler>) -> Self {
        self.handlers.push((filters, handler));
        self
    }
}

#[async_trait]
impl Handler for Dispatcher {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        for (filters, handler) in &self.handlers {
            if filters.iter().any(|filter| covers(filter, &message.subject)) {
                handler.handle(message, connection).await?;
            }
        }
        Ok(())
    }
}
