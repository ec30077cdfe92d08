//! Routes by API: kept in gateway_db, told by event, and a layer of the table of every replica. routes.yaml wins over them.

mod registry;
mod store;

pub use registry::{Registered, RouteApiError, StaticRoutes};
pub use store::STEP;

#[cfg(test)]
mod tests;
