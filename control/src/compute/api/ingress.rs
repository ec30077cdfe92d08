//! `/compute/containers/{id}/ingress`: ports that lead to a container.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{Done, done, permit};
use crate::caller::Caller;
use crate::compute::model::{self, Invalid, protocol_word};
use crate::compute::service::Service;
use crate::error::Error;
use crate::extract::{Json, Path};
use crate::request::Context;

#[derive(Deserialize)]
pub(super) struct WantedRule {
    port: i64,
    target_port: Option<i64>,
    protocol: Option<String>,
}

impl WantedRule {
    pub(super) fn parse(self, service: &Service) -> Result<model::WantedRule, Invalid> {
        let allowed = &service.config().ingress_ports;
        model::WantedRule::parse(self.port, self.target_port, self.protocol.as_deref(), allowed)
    }
}

#[derive(Serialize)]
pub(super) struct Rule {
    id: i64,
    port: u16,
    target_port: u16,
    protocol: &'static str,
    /// pending, active or rejected
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// Unix seconds
    created_at: i64,
}

impl From<model::Rule> for Rule {
    fn from(rule: model::Rule) -> Self {
        Self {
            id: rule.number,
            port: rule.port,
            target_port: rule.target_port,
            protocol: protocol_word(rule.protocol),
            state: rule.state.as_str(),
            reason: rule.reason,
            created_at: rule.created_at.div_euclid(1_000_000),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Rules {
    rules: Vec<Rule>,
}

pub(super) async fn list(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Rules>, Error> {
    let (permit, id) = permit(&caller, "read", &id)?;
    let rules = service.rules(permit, id).await?;
    Ok(Json(Rules { rules: rules.into_iter().map(Rule::from).collect() }))
}

pub(super) async fn create(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
    Json(wanted): Json<WantedRule>,
) -> Result<Json<Rule>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    let rule = service.add_rule(permit, id, wanted.parse(&service)?, &context.cause()).await?;
    Ok(Json(rule.into()))
}

pub(super) async fn delete(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path((id, port)): Path<(String, String)>,
) -> Result<Json<Done>, Error> {
    let (permit, id) = permit(&caller, "update", &id)?;
    let port = port.parse().map_err(|_| Error::bad_request("port: a number, 1 to 65535"))?;
    service.remove_rule(permit, id, port, &context.cause()).await?;
    Ok(done())
}
