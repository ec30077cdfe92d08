//! Streams and durable consumers on the server as the contract wants them: created, checked, or changed where the
//! server lets.

use std::time::Duration;

use edd_proto::{Consumer, Stream};
use serde_json::{Map, Value, json};

use super::connection::{Connection, Failure};
use crate::bus::{ACK_WAIT, BusError, MAX_ACK_PENDING};

/// The first server with atomic batches.
const BATCHES_SINCE: (i64, i64, i64) = (2, 12, 0);

/// What may be done about a setting that is found different.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing: it needs another stream or consumer.
    Never,
    Allowed,
    /// It is only wished for: the bus works without.
    Optional,
}

struct Setting {
    field: &'static str,
    wanted: Value,
    change: Change,
}

/// One stream or consumer.
struct Piece {
    /// For people: `stream USERS`.
    name: String,
    info: String,
    create: String,
    update: String,
    settings: Vec<Setting>,
    /// Names that go with the settings into a request.
    names: Map<String, Value>,
    /// Of a consumer: the settings are a part of the request.
    stream: Option<&'static str>,
}

fn nanos(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn settings(table: Vec<(&'static str, Value, Change)>) -> Vec<Setting> {
    table.into_iter().map(|(field, wanted, change)| Setting { field, wanted, change }).collect()
}

impl Piece {
    fn stream(spec: &Stream, batches: bool) -> Self {
        let mut table = vec![
            ("subjects", json!(spec.subjects), Change::Allowed),
            ("storage", json!("file"), Change::Never),
            ("retention", json!("limits"), Change::Never),
            ("discard", json!("old"), Change::Allowed),
            ("max_age", nanos(spec.retention()), Change::Allowed),
            ("deny_delete", json!(true), Change::Allowed),
            ("deny_purge", json!(true), Change::Allowed),
        ];
        if batches {
            table.push(("allow_atomic", json!(true), Change::Optional));
        }
        Self {
            name: format!("stream {}", spec.name),
            info: format!("STREAM.INFO.{}", spec.name),
            create: format!("STREAM.CREATE.{}", spec.name),
            update: format!("STREAM.UPDATE.{}", spec.name),
            settings: settings(table),
            names: Map::from_iter([("name".to_owned(), json!(spec.name))]),
            stream: None,
        }
    }

    fn consumer(spec: &Consumer) -> Self {
        let path = format!("{}.{}", spec.stream.name, spec.name);
        let create = format!("CONSUMER.CREATE.{path}");
        Self {
            name: format!("consumer {} of stream {}", spec.name, spec.stream.name),
            info: format!("CONSUMER.INFO.{path}"),
            update: create.clone(),
            create,
            settings: settings(vec![
                ("filter_subjects", json!(spec.filters), Change::Allowed),
                ("ack_policy", json!("explicit"), Change::Never),
                ("deliver_policy", json!("all"), Change::Never),
                ("replay_policy", json!("instant"), Change::Never),
                ("deliver_subject", Value::Null, Change::Never),
                ("ack_wait", nanos(ACK_WAIT), Change::Allowed),
                // The first of its entries would silently replace the wait for an answer.
                ("backoff", Value::Null, Change::Allowed),
                // Attempts are counted in the service's database: the server would give up without a dead letter.
                ("max_deliver", json!(-1), Change::Allowed),
                ("max_ack_pending", json!(MAX_ACK_PENDING), Change::Allowed),
                ("inactive_threshold", Value::Null, Change::Allowed),
                ("headers_only", Value::Null, Change::Allowed),
            ]),
            names: Map::from_iter([
                ("name".to_owned(), json!(spec.name)),
                ("durable_name".to_owned(), json!(spec.name)),
            ]),
            stream: Some(spec.stream.name),
        }
    }

    fn request(&self, config: Map<String, Value>) -> Value {
        match self.stream {
            Some(stream) => json!({"stream_name": stream, "config": config}),
            None => Value::Object(config),
        }
    }

    /// The configuration that the server has afterwards.
    async fn ensure(&self, connection: &Connection) -> Result<Map<String, Value>, BusError> {
        let mut config = match connection.api(&self.info, &Value::Null).await {
            Ok(info) => config_of(info),
            Err(Failure::Absent(_)) => return self.make(connection).await,
            Err(failure) => return Err(failure.into()),
        };
        let wrong: Vec<_> = self.settings.iter().filter(|setting| !is_as_wanted(&config, setting)).collect();
        if wrong.is_empty() {
            return Ok(config);
        }
        let is_required = wrong.iter().any(|setting| setting.change != Change::Optional);
        let complaint = self.complaint(&config, &wrong);
        if wrong.iter().any(|setting| setting.change == Change::Never) {
            return Err(BusError::Refused(format!("{complaint}; remove it and start again")));
        }
        let before = config.clone();
        for setting in wrong {
            config.insert(setting.field.to_owned(), setting.wanted.clone());
        }
        match connection.api(&self.update, &self.request(config)).await {
            Ok(info) => {
                tracing::info!(complaint, "changed");
                Ok(config_of(info))
            }
            Err(Failure::Bus(BusError::Refused(_))) if !is_required => Ok(before),
            Err(Failure::Bus(BusError::Refused(reason))) => Err(BusError::Refused(format!("{complaint}; {reason}"))),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn make(&self, connection: &Connection) -> Result<Map<String, Value>, BusError> {
        let mut config = self.names.clone();
        config.extend(self.settings.iter().map(|setting| (setting.field.to_owned(), setting.wanted.clone())));
        match connection.api(&self.create, &self.request(config)).await {
            Ok(info) => {
                tracing::info!("created {}", self.name);
                Ok(config_of(info))
            }
            Err(Failure::Bus(BusError::Refused(reason))) => {
                Err(BusError::Refused(format!("{} does not exist and cannot be created; {reason}", self.name)))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    fn complaint(&self, config: &Map<String, Value>, wrong: &[&Setting]) -> String {
        let differences: Vec<_> = wrong
            .iter()
            .map(|Setting { field, wanted, .. }| {
                let found = config.get(*field).unwrap_or(&Value::Null);
                format!("{field} is {found} and should be {wanted}")
            })
            .collect();
        format!("{}: {}", self.name, differences.join(", "))
    }
}

fn config_of(mut info: Value) -> Map<String, Value> {
    let Value::Object(mut config) = info["config"].take() else { return Map::new() };
    // Older programs say a single filter in its own field.
    if let Some(filter) = config.remove("filter_subject").filter(|filter| !is_unset(filter)) {
        config.insert("filter_subjects".to_owned(), json!([filter]));
    }
    config
}

/// Servers leave out what is not set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn is_as_wanted(config: &Map<String, Value>, setting: &Setting) -> bool {
    match (config.get(setting.field).unwrap_or(&Value::Null), &setting.wanted) {
        (found, wanted) if is_unset(wanted) => is_unset(found),
        // Their order means nothing.
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && wanted.iter().all(|one| found.contains(one))
        }
        (found, wanted) => found == wanted,
    }
}

/// See [`crate::bus::Bus::ensure`]. For each stream, whether it takes atomic batches.
pub(super) async fn ensure(
    connection: &Connection,
    streams: &[Stream],
    consumers: &[Consumer],
) -> Result<Vec<bool>, BusError> {
    connection.ready().await?;
    let (major, minor, patch) = BATCHES_SINCE;
    let batches = connection.client().is_server_compatible(major, minor, patch);
    let mut batching = Vec::with_capacity(streams.len());
    for spec in streams {
        let config = Piece::stream(spec, batches).ensure(connection).await?;
        batching.push(batches && config.get("allow_atomic") == Some(&Value::Bool(true)));
    }
    for spec in consumers {
        Piece::consumer(spec).ensure(connection).await?;
    }
    Ok(batching)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{KEYS, MAILER};

    #[test]
    fn a_configuration_is_compared_by_its_meaning() {
        let piece = Piece::stream(&KEYS, false);
        let wrong = |found: Value| {
            let config = config_of(json!({ "config": found }));
            let wrong: Vec<_> = piece.settings.iter().filter(|setting| !is_as_wanted(&config, setting)).collect();
            wrong.iter().map(|setting| setting.field).collect::<Vec<_>>().join(" ")
        };
        let good = json!({
            "subjects": ["lock.opened", "key.>"], "storage": "file", "retention": "limits", "discard": "old",
            "max_age": 86_400_000_000_000_u64, "deny_delete": true, "deny_purge": true, "num_replicas": 3,
        });
        assert_eq!(wrong(good.clone()), "");
        let mut bad = good;
        bad["subjects"] = json!(["key.>"]);
        bad["storage"] = json!("memory");
        bad.as_object_mut().expect("an object").remove("deny_purge");
        assert_eq!(wrong(bad), "subjects storage deny_purge");
    }

    #[test]
    fn a_consumer_with_one_filter_is_as_good_as_one_with_a_list_of_it() {
        let piece = Piece::consumer(&MAILER);
        let filters = &piece.settings[0];
        let config = |found: Value| config_of(json!({ "config": found }));
        assert!(is_as_wanted(&config(json!({"filter_subject": "user.*.created"})), filters));
        assert!(is_as_wanted(&config(json!({"filter_subject": "", "filter_subjects": ["user.*.created"]})), filters));
        assert!(!is_as_wanted(&config(json!({"filter_subject": "user.>"})), filters));
        let backoff = piece.settings.iter().find(|setting| setting.field == "backoff").expect("a setting");
        assert!(is_as_wanted(&config(json!({})), backoff) && !is_as_wanted(&config(json!({"backoff": [1]})), backoff));
    }
}
