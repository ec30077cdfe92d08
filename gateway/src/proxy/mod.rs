//! How requests are served: the strict rules, the engine and the two wire protocols.

pub mod answer;
pub mod chunks;
pub mod conn;
pub mod context;
pub mod engine;
mod failure;
pub mod framing;
pub mod http1;
pub mod http2;
mod patience;
mod respond;
pub mod scope;
pub mod transport;
pub mod waking;
