//! The kernel's tables, the same in every service's database.

use crate::database::Step;
use crate::projection;

/// WAL lets readers read while one writes; FULL means that what was committed survives a power loss.
pub(crate) const SQLITE_SETTINGS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON;";

/// What [`SQLITE_BEGIN_RELAXED`] changes for its connection, back again.
pub(crate) const SQLITE_DURABLE: &str = "PRAGMA synchronous = FULL";

/// With NORMAL the disk is written before the log is copied into the file, and not at every commit.
pub(crate) const SQLITE_BEGIN_RELAXED: &str = "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE";
pub(crate) const POSTGRES_BEGIN_RELAXED: &str = "BEGIN; SET LOCAL synchronous_commit = off";

/// A process that is stuck, or cut off, in a transaction must not hold its locks for ever.
pub(crate) const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '60s'";

pub(crate) const STEPS: [Step; 2] = [EVENTS, projection::STEP];

const EVENTS: Step = Step {
    version: 1,
    name: "events kernel",
    sql: "
-- The version of every entity that ever was. A row is never removed: versions never restart.
CREATE TABLE entity_versions (
    entity TEXT PRIMARY KEY,
    version BIGINT NOT NULL
);

-- What happened, in the order of commits per entity. Kept for longer than the streams keep it.
CREATE TABLE outbox (
    seq {serial},
    event_id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    entity TEXT NOT NULL,
    version BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    payload {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    headers TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    published_at BIGINT
);
CREATE INDEX outbox_unpublished ON outbox (seq) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- What the relay knows of each stream: another epoch, or not this event at last_seq, means that the broker lost data.
CREATE TABLE relayed_streams (
    stream TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    -- Empty if it is not known that anything is there.
    last_event TEXT NOT NULL
);

-- Which events had their effect already, written in the transaction of the effect.
CREATE TABLE inbox (
    consumer TEXT NOT NULL,
    event_id TEXT NOT NULL,
    handled_at BIGINT NOT NULL,
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_handled ON inbox (handled_at);

-- Events that failed, and those of the same entity behind them. The bus has been answered: they wait here, because a
-- broker forgets its counts, reorders what it delivers again, and bounds what it may leave unanswered.
CREATE TABLE retries (
    id {serial},
    consumer TEXT NOT NULL,
    event_id TEXT NOT NULL,
    stream TEXT NOT NULL,
    stream_seq BIGINT NOT NULL,
    subject TEXT NOT NULL,
    entity TEXT NOT NULL,
    version BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    payload {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    -- 0 for one that waits for another
    attempts BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    UNIQUE (consumer, event_id)
);
CREATE INDEX retries_entity ON retries (consumer, stream, entity, version, id);
CREATE INDEX retries_due ON retries (consumer, stream, due_at);

-- Events that a consumer gave up on.
CREATE TABLE dead_letters (
    id {serial},
    consumer TEXT NOT NULL,
    event_id TEXT NOT NULL,
    stream TEXT NOT NULL,
    stream_seq BIGINT NOT NULL,
    subject TEXT NOT NULL,
    entity TEXT NOT NULL,
    version BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    payload {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    error TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    dead_at BIGINT NOT NULL,
    -- dead, requeued, handled or discarded
    state TEXT NOT NULL,
    UNIQUE (consumer, event_id)
);
CREATE INDEX dead_letters_state ON dead_letters (state, consumer, id);

-- The audit trail: every event that this service published or handled (seed 002's columns, and what finds them).
CREATE TABLE event_log (
    id {serial},
    event_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    entity TEXT NOT NULL,
    version BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    payload {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    -- when the row was written
    published_at BIGINT NOT NULL,
    processed_at BIGINT,
    -- the consumer; empty for the service's own events
    processed_by TEXT NOT NULL,
    -- published (pending as long as the outbox says so), completed or failed
    status TEXT NOT NULL,
    error_message TEXT
);
-- Each index costs every write: subjects are found by entity or by a scan.
CREATE UNIQUE INDEX event_log_once ON event_log (event_id, processed_by);
CREATE INDEX event_log_entity ON event_log (entity, id);
CREATE INDEX event_log_correlation ON event_log (correlation_id);
CREATE INDEX event_log_published ON event_log (published_at);
",
};
