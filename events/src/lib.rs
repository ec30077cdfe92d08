//! The event kernel: outbox, relay, bus, consumers, dead letters, replay.
//!
//! Imports `edd-proto` alone, and knows no service.
