//! How far a durable consumer's effects reach.

use edd_proto::Consumer as Spec;

use super::retry;
use crate::bus::{ConsumerState, StreamState};
use crate::database::Database;

/// Up to where all messages of a stream have had the effect that `consumer` gives them in `database`, or are dead
/// letters. `stream` was read before `state`.
///
/// A consumer passes what retention takes, as if it had been handled: who must know of that looks at the stream once more
/// after `state` was read, and compares where it begins with what was covered at the last look.
///
/// # Errors
/// The database fails.
pub async fn covered(
    database: &Database,
    consumer: &Spec,
    stream: &StreamState,
    state: &ConsumerState,
) -> sqlx::Result<u64> {
    // The floor stands still while nothing comes that matches the consumer's filters.
    let idle = state.waiting == 0 && state.unanswered == 0;
    let answered = if idle { state.ack_floor.max(stream.last_seq) } else { state.ack_floor };
    // Looked for after the floor: an event that waits for another try is noted before it is answered.
    let waiting = retry::lowest_seq(database, consumer).await?;
    Ok(waiting.map_or(answered, |seq| answered.min(seq - 1)))
}
