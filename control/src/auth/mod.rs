pub mod entropy;
pub mod limiter;
pub mod model;
pub mod password;
pub mod scope;
