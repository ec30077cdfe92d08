//! The service on both databases, with a clock that stands still and a store in a folder of its own.

mod check;
mod departures;
mod files;
mod fixture;
mod full;
mod http;
mod keeping;
mod namespaces;
mod quotas;
mod races;
mod shares;
mod trees;
mod uploads;
