//! The API, asked as clients do, in this process.

mod admin;
mod download;
mod entries;
mod namespaces;
mod shares;
mod site;
mod transfers;
mod tus;
mod upload;
