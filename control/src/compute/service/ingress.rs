//! Ports that lead to containers, as their owners ask for them.

use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use edd_proto::ContainerId;
use edd_proto::compute::{IngressRuleDeleteRequested, IngressRuleRequested};

use super::Service;
use super::deletion::take_back;
use crate::caller::Permit;
use crate::compute::error::ComputeError;
use crate::compute::model::{Rule, RuleState, WantedRule};
use crate::compute::store::ingress;

/// Rules of one container that one list has at most.
pub(super) const MAX_RULES: u32 = 1000;

impl Service {
    /// The rules of a container, by port.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn rules(&self, permit: Permit, id: ContainerId) -> Result<Vec<Rule>, ComputeError> {
        self.container(permit, id).await?;
        Ok(ingress::of_container(self.database().reader(), id, MAX_RULES).await?)
    }

    /// Asks the gateway to lead a port to a container.
    ///
    /// # Errors
    /// The caller has no such container, or it has a rule for the port, or too many.
    pub async fn add_rule(
        &self,
        permit: Permit,
        id: ContainerId,
        rule: WantedRule,
        cause: &Cause,
    ) -> Result<Rule, ComputeError> {
        let mut transaction = self.database().begin().await?;
        self.lock(&mut transaction, permit.owner(), id).await?;
        let added = self.request_rule(&mut transaction, id, rule, cause).await?;
        self.database().commit(transaction).await?;
        Ok(added)
    }

    /// The same for a container that is locked.
    pub(super) async fn request_rule(
        &self,
        transaction: &mut Transaction,
        container: ContainerId,
        rule: WantedRule,
        cause: &Cause,
    ) -> Result<Rule, ComputeError> {
        let most = self.config().quotas.ingress_rules;
        if ingress::count(&mut **transaction, container).await? >= i64::from(most) {
            return Err(ComputeError::Quota { what: "ingress rules for this container", most });
        }
        let (now, WantedRule { port, target_port, protocol }) = (self.now(), rule);
        let number = ingress::insert(transaction, container, rule, now).await?;
        let number = number.ok_or(ComputeError::Conflict("the container has a rule for this port: delete it first"))?;
        let event = IngressRuleRequested {
            container_id: container.to_string(),
            port: port.into(),
            target_port: target_port.into(),
            protocol: protocol.into(),
            request_id: number,
            ..Default::default()
        };
        let version = self.publisher().add(transaction, event, cause).await?;
        ingress::set_version(&mut **transaction, number, version).await?;
        let (state, reason, created_at) = (RuleState::Pending, String::new(), now);
        Ok(Rule {
            number,
            container,
            port,
            target_port,
            protocol,
            state,
            reason,
            version,
            created_at,
            deleted_at: None,
        })
    }

    /// Takes a rule back.
    ///
    /// # Errors
    /// The caller has no such container, or it has no rule for the port.
    pub async fn remove_rule(
        &self,
        permit: Permit,
        id: ContainerId,
        port: u16,
        cause: &Cause,
    ) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        self.lock(&mut transaction, permit.owner(), id).await?;
        let buried = ingress::bury(&mut *transaction, id, port, self.now()).await?;
        let rule = buried.ok_or(ComputeError::NotFound("rule: this container has none for the port"))?;
        take_back(self.publisher(), &mut transaction, &rule, cause).await?;
        Ok(self.database().commit(transaction).await?)
    }
}

/// The event by which `rule` is taken back.
pub(super) fn taken_back(rule: &Rule) -> IngressRuleDeleteRequested {
    IngressRuleDeleteRequested {
        container_id: rule.container.to_string(),
        port: rule.port.into(),
        request_id: rule.number,
        ..Default::default()
    }
}
