//! Starts edd and the servers behind it, speaks to it byte by byte, and watches what each side saw.
//!
//! - [`Edd`]: the process under test, its log and its memory.
//! - [`Upstream`] (HTTP/1.1, by path), [`H2Upstream`] (gRPC-like, in the clear) and [`RawUpstream`]
//!   (a script over a bare socket): what edd forwards to. They record every request they were sent.
//! - [`Deployment`]: all processes that have to do with users, on SQLite or on PostgreSQL and NATS, and [`People`] who
//!   register there; [`Tenant`]: one of them, with containers; [`Link`]: a network between a process and a server, to be
//!   cut.
//! - [`Program`]: edd's other verbs, and clients that others wrote, such as curl.
//! - [`Connection`]: a client that writes exact bytes and reads answers with a strict parser.
//!   [`tls`] and [`frames`] carry it over TLS and down to single HTTP/2 frames; [`H2Client`] and
//!   [`WebSocket`] are libraries' clients over it.
//!
//! A test starts its upstreams, then edd with routes that point at them, and shares both among the
//! cases of one table:
//!
//! ```ignore
//! let upstream = Upstream::start().await;
//! let edd = Edd::gateway(upstream.routes()).env("EDD_HEADER_TIMEOUT", "300ms").start().await;
//! let mut client = edd.connect().await;
//! client.send("GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
//! assert_eq!(client.response().await.status, 200);
//! assert_eq!(upstream.take()[0].target, "/x");
//! ```
//!
//! When a test fails, the tail of edd's log is printed with it. When it passes, edd must still be
//! alive, or have exited because it was asked to, and no line of its log may tell of a panic.

pub mod browser;
mod cases;
mod connection;
mod deployment;
mod edd;
pub mod frames;
pub mod h2_client;
mod h2_upstream;
mod known;
mod link;
mod log;
mod metrics;
mod people;
mod program;
mod raw_upstream;
mod record;
mod refusal;
mod response;
mod seen;
mod self_test;
mod tenant;
pub mod tls;
pub mod traces;
mod upstream;
mod websocket;
mod workdir;

pub use cases::Cases;
pub use connection::{Connection, Flood};
pub use deployment::{Deployment, Role, is_full_run};
pub use edd::{Edd, ask};
pub use h2_client::H2Client;
pub use h2_upstream::H2Upstream;
pub use known::knowing;
pub use link::{Link, Way};
pub use log::LogLine;
pub use metrics::Metrics;
pub use people::{People, User};
pub use program::{Output, Program, Running};
pub use raw_upstream::RawUpstream;
pub use record::{PATIENCE, within};
pub use response::{Broken, Response};
pub use seen::{Progress, Seen};
pub use tenant::{Made, Tenant, until};
pub use upstream::Upstream;
pub use websocket::WebSocket;
pub use workdir::Workdir;
