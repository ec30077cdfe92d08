//! One suite for every kind of store, and what only a disk can do.

mod local;
mod s3;
mod suite;
