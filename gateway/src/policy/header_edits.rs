//! The header changes that a route asks for.

use crate::decision::{HeaderOp, HeaderOps};
use crate::route::HeaderEdits;

/// Appends `edits` to `ops`: remove, then set, then add.
pub fn apply(edits: &HeaderEdits, ops: &mut HeaderOps) {
    ops.extend(edits.remove.iter().cloned().map(HeaderOp::Remove));
    ops.extend(edits.set.iter().cloned().map(|(name, value)| HeaderOp::Set(name, value)));
    ops.extend(edits.add.iter().cloned().map(|(name, value)| HeaderOp::Append(name, value)));
}
