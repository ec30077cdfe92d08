//! The file share with the clients that people have, through `edd up`.

mod browser;
mod command;
mod others;
mod site;
