pub mod certs;
pub mod path;
pub mod route;
