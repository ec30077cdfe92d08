//! Where routes come from: the form that people write, and its way to [`crate::route::Route`].
//!
//! Text → `node` (YAML with positions) → `written` (what stands in the file, key by key) → `build`
//! (routes, whole or refused) → `lint` (what is legal and still a mistake).

mod address;
mod build;
#[cfg(test)]
mod cases;
mod decode;
pub mod diagnostic;
pub mod diff;
pub mod file;
mod links;
mod lint;
mod node;
mod scalar;
pub mod schema;
pub mod watch;
mod written;

pub use diagnostic::{Diagnostic, Severity};
pub use diff::{Change, diff};
pub use file::{LoadError, Parsed, load, parse};
pub use watch::RoutesWatcher;
