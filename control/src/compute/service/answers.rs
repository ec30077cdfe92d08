//! What the gateway says to the ports that tenants ask for.

use async_trait::async_trait;
use edd_events::consumer::{Failure, Handler, decode};
use edd_events::message::Message;
use edd_proto::AnyEvent;
use sqlx::AnyConnection;

use crate::compute::model::RuleState;
use crate::compute::store::ingress;

/// Longest reason that is kept, characters.
const MAX_REASON_CHARS: usize = 300;

/// Notes the gateway's answers on the rules. One to a request that is no longer the last for its port changes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers;

impl Answers {
    /// The subjects that it handles.
    pub const SUBJECTS: &[&str] = &["gateway.ingress.>"];
}

#[async_trait]
impl Handler for Answers {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let (id, request, state, reason) = match decode(message)?.0 {
            AnyEvent::IngressRuleCreated(event) => {
                (event.container_id, event.request_id, RuleState::Active, String::new())
            }
            AnyEvent::IngressRuleRejected(event) => {
                let reason = event.message.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
                (event.container_id, event.request_id, RuleState::Rejected, reason)
            }
            AnyEvent::IngressRuleDeleted(event) => {
                let reason = "the gateway no longer serves it: delete the rule and ask for the port again";
                (event.container_id, event.request_id, RuleState::Rejected, reason.to_owned())
            }
            _ => return Ok(()),
        };
        let id = id.parse().map_err(|error| Failure::Permanent(format!("container_id: {error}")))?;
        ingress::answer(connection, id, request, state, &reason).await?;
        Ok(())
    }
}
