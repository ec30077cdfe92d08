//! Servers that tests start for themselves, on free ports and in temporary folders: whoever starts one needs none that
//! runs already, and leaves none behind.

pub mod nats;
pub mod postgres;
