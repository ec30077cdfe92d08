pub mod path;
pub mod route;
pub mod sources;
