//! WebDAV (RFC 4918): the share as a folder of one's own machine.
//!
//! `dav-server` speaks the protocol; [`filesystem`] is what it takes for a file system. It walks through trees entry by
//! entry; here a tree is deleted, moved and copied as a whole, and a file takes another's place in one step. Reading a
//! file is no part of it: that is the same as everywhere else in the share.

mod entry;
mod file;
mod filesystem;
mod request;
mod spot;

use dav_server::fakels::FakeLs;
use dav_server::{DavConfig, DavHandler};

use crate::sfs::dav::filesystem::Filesystem;
use crate::sfs::service::Service;

pub(in crate::sfs) use request::Request;
pub(in crate::sfs) use spot::Spot;

/// Where it is.
pub(in crate::sfs) const PREFIX: &str = "/storage/dav";

/// What answers all that is not the reading of a file.
///
/// Locks are granted, because Windows and macOS do not write without, and keep nobody out: a file is replaced in one step
/// whoever holds one, and `If-Match` is what tells of somebody else's change. So they need no memory, and are the same
/// however many processes serve.
pub(in crate::sfs) fn handler(service: Service) -> DavHandler<Request> {
    let config = DavConfig::new().strip_prefix(PREFIX).filesystem(Box::new(Filesystem::new(service)));
    config.locksystem(FakeLs::new()).build_handler()
}
