//! The whole service over HTTP, on SQLite and on PostgreSQL.

mod accounts;
mod fixture;
mod input;
mod keys;
mod login;
mod page;
mod refresh;
mod sessions;
mod snapshot;
mod start;
mod tokens;
mod validation;
