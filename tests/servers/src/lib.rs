//! Servers that tests start for themselves, on free ports and in temporary folders: whoever starts one needs none that
//! runs already, and leaves none behind, however the test process ends.
//!
//! Calls block until the server does what is asked, for a bounded time, and panic with its log if it does not.

pub mod disk;
pub mod engine;
pub mod nats;
pub mod port;
pub mod postgres;
pub mod program;
pub mod s3;
pub mod sshd;
mod supervisor;
