pub mod path;
pub mod proxy;
pub mod reason;
pub mod route;
pub mod table;
