//! The contract as other programs see it.

mod compatibility;
mod descriptors;
mod golden;
mod properties;
