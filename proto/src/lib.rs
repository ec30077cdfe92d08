//! The contract between services: events and requests as protobuf messages, each with its subject.
//!
//! Imports no other crate of the workspace.
