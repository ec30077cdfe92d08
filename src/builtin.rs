//! The routes that are there without a line in routes.yaml: the services under the base domain, each by its own host
//! and, for the dashboard, by path under one origin. routes.yaml wins over each of them.

use std::fmt;

use edd_gateway::route::{
    Action, Authority, HostName, HostPattern, PathPrefix, Protocol, Route, RouteError, Source, Target, UpstreamTls,
};

/// Where a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    authority: Authority,
    protocol: Protocol,
}

impl ServiceUrl {
    /// Parses `http://host[:port]` or `https://host[:port]`, without a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (protocol, port, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Protocol::H1, 80, rest),
            Some(("https", rest)) => {
                (Protocol::Https(UpstreamTls { verify: true, server_name: None, ca_file: None }), 443, rest)
            }
            _ => return Err("write it as http://host:port or https://host:port".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err("a service's URL has a host and a port, and nothing else".to_owned());
        }
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let authority = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
        let authority = Authority::parse(&authority).map_err(|error| error.to_string())?;
        Ok(Self { authority, protocol })
    }

    /// A service of this very process, by the name that stands for it.
    pub fn in_process(authority: Authority) -> Self {
        Self { authority, protocol: Protocol::H1 }
    }

    fn route(&self, host: &HostName, path: &str) -> Result<Route, RouteError> {
        let targets = vec![Target { authority: self.authority.clone(), weight: 1 }];
        let action = Action::Proxy { targets, protocol: self.protocol.clone() };
        Ok(Route::new(HostPattern::Exact(host.clone()), PathPrefix::parse(path)?, action, Source::Builtin))
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.protocol == Protocol::H1 { "http" } else { "https" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// The auth service's routes: its own host, and what the dashboard's host takes from it.
pub fn auth(domain: &HostName, service: &ServiceUrl) -> Result<Vec<Route>, RouteError> {
    let own = HostName::parse(&format!("auth.{domain}"))?;
    let by_path = ["/", "/login", "/register", "/logout", "/api", "/admin", "/.well-known/jwks.json"];
    std::iter::once(service.route(&own, "/")).chain(by_path.map(|path| service.route(domain, path))).collect()
}

/// The file share's routes: its own host, and its path under the dashboard's.
pub fn storage(domain: &HostName, service: &ServiceUrl) -> Result<Vec<Route>, RouteError> {
    let own = HostName::parse(&format!("storage.{domain}"))?;
    Ok(vec![service.route(&own, "/")?, service.route(domain, "/storage")?])
}

/// The compute service's routes: its own host, below which containers have theirs, and its path under the dashboard's.
pub fn compute(domain: &HostName, service: &ServiceUrl) -> Result<Vec<Route>, RouteError> {
    let own = HostName::parse(&format!("compute.{domain}"))?;
    Ok(vec![service.route(&own, "/")?, service.route(domain, "/compute")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_its_url() {
        let parsed = |text: &str| ServiceUrl::parse(text).map(|url| url.authority.to_string());
        assert_eq!(parsed("http://auth:8081"), Ok("auth:8081".to_owned()));
        assert_eq!(parsed("http://auth/"), Ok("auth:80".to_owned()));
        assert_eq!(parsed("https://[::1]"), Ok("[::1]:443".to_owned()));
        for text in ["auth:8081", "ftp://auth", "http://auth/path", "http://user:secret@auth", "http://", "http://a:0"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn services_have_their_hosts_and_their_paths_under_the_dashboard() {
        let domain = HostName::parse("cloud.localhost").expect("a host");
        let url = ServiceUrl::parse("http://auth:8081").expect("a URL");
        let routes = auth(&domain, &url).expect("routes");
        let ids: Vec<_> = routes.iter().map(|route| route.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "auth.cloud.localhost/",
                "cloud.localhost/",
                "cloud.localhost/login",
                "cloud.localhost/register",
                "cloud.localhost/logout",
                "cloud.localhost/api",
                "cloud.localhost/admin",
                "cloud.localhost/.well-known/jwks.json"
            ]
        );
        assert!(routes.iter().all(|route| route.source == Source::Builtin));
        let routes = storage(&domain, &url).expect("routes");
        let ids: Vec<_> = routes.iter().map(|route| route.id.as_str()).collect();
        assert_eq!(ids, ["storage.cloud.localhost/", "cloud.localhost/storage"]);
        let routes = compute(&domain, &url).expect("routes");
        let ids: Vec<_> = routes.iter().map(|route| route.id.as_str()).collect();
        assert_eq!(ids, ["compute.cloud.localhost/", "cloud.localhost/compute"]);
    }
}
