//! Names under `localhost` are this machine (RFC 6761, 6.3), also where the system's resolver does not know it, as
//! glibc's does not: `edd up` is at `cloud.localhost`.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

/// The system's resolver, but for those names.
#[derive(Clone, Debug)]
pub struct Resolver(GaiResolver);

impl Resolver {
    pub fn new() -> Self {
        Self(GaiResolver::new())
    }
}

fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if is_local(name.as_str()) {
            // The port is the caller's to fill in.
            let addresses = vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
            return Box::pin(std::future::ready(Ok(addresses.into_iter())));
        }
        let found = self.0.call(name);
        Box::pin(async { Ok(found.await?.collect::<Vec<_>>().into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_localhost_are_here() {
        for name in ["localhost", "cloud.localhost", "A.B.LOCALHOST."] {
            assert!(is_local(name), "{name}");
        }
        for name in ["example.org", "notlocalhost", "localhost.example.org"] {
            assert!(!is_local(name), "{name}");
        }
    }
}
