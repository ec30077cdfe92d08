//! What the gateway keeps of a container.

use std::net::IpAddr;
use std::num::NonZeroU16;

use edd_events::compute_cache::containers;
use edd_events::projection::Entry;
use edd_proto::compute::Container;
use edd_proto::{ContainerId, UserId};
use serde::{Deserialize, Serialize};

use crate::live::{LiveRoute, Place, SshAccess, Status};
use crate::route::Authority;

/// A container, as far as requests are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: ContainerId,
    pub owner: UserId,
    /// That of its last event.
    pub version: i64,
    pub status: Status,
    /// Where its host name leads: host and port; none while it has no address, or one that is none.
    pub address: Option<Authority>,
    pub https_enabled: bool,
    pub redirect_to_https: bool,
    /// Who may log in and how; none: nobody, because SSH is off.
    pub ssh: Option<SshAccess>,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Is(Record),
    /// It was deleted. Nothing of a lower version brings it back.
    Gone {
        id: ContainerId,
        version: i64,
    },
}

impl Change {
    /// What a row of the projection says. None: the row is of no container, which nobody writes.
    pub fn of(entry: &Entry) -> Option<Self> {
        let Some((id, container)) = containers::container(entry) else {
            return entry.key.parse().ok().map(|id| Self::Gone { id, version: entry.version });
        };
        let address = format!("{}:{}", bracketed(&container.address), container.http_port);
        Some(Self::Is(Record {
            id,
            owner: container.user_uid.parse().ok()?,
            version: entry.version,
            status: container.status().into(),
            address: Authority::parse(&address).ok(),
            https_enabled: container.https_enabled,
            redirect_to_https: container.redirect_to_https,
            ssh: ssh_access(&container),
        }))
    }

    pub fn id(&self) -> ContainerId {
        match self {
            Self::Is(record) => record.id,
            Self::Gone { id, .. } => *id,
        }
    }

    pub fn version(&self) -> i64 {
        match self {
            Self::Is(record) => record.version,
            Self::Gone { version, .. } => *version,
        }
    }
}

/// None if nobody is let in: SSH is off, or its port is none.
fn ssh_access(container: &Container) -> Option<SshAccess> {
    let port = u16::try_from(container.ssh_port).ok().filter(|_| container.ssh_enabled)?;
    let only_keys = container.ssh_keys_restricted.then(|| {
        let mut keys = container.ssh_key_ids.clone();
        keys.sort_unstable();
        keys.into_boxed_slice()
    });
    let host_key = container.ssh_host_key_fingerprint.parse().ok();
    Some(SshAccess { port: NonZeroU16::new(port), host_key, only_keys })
}

/// An IPv6 address as authorities have it.
fn bracketed(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => address.to_owned(),
    }
}

impl Record {
    /// The container that `live` leads to by its host name; none of another route.
    pub fn of(live: &LiveRoute) -> Option<Self> {
        let backend = live.backend()?;
        let address = match backend.place() {
            Place::Nowhere => None,
            Place::Ip(ip, port) => Some(Authority::of_ip(*ip, *port)),
            Place::Name(upstream) => Some(upstream.authority().clone()),
        };
        Some(Self {
            id: backend.container(),
            owner: backend.owner(),
            version: backend.version(),
            status: backend.status(),
            address,
            https_enabled: backend.https_enabled(),
            redirect_to_https: live.route.https_only,
            ssh: backend.ssh().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use edd_proto::compute::{Container, ContainerStatus};

    use super::*;

    const ID: &str = "abcdefghij";

    fn container(address: &str, port: i32) -> Container {
        Container {
            container_id: ID.to_owned(),
            user_uid: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
            status: ContainerStatus::Running.into(),
            address: address.to_owned(),
            http_port: port,
            https_enabled: true,
            ..Container::default()
        }
    }

    fn change(container: Option<Container>) -> Change {
        Change::of(&containers::entry(ID.parse().unwrap(), 3, container)).unwrap()
    }

    #[test]
    fn a_row_says_what_became_of_a_container() {
        let Change::Is(record) = change(Some(container("10.0.0.7", 80))) else { panic!("it lives") };
        assert_eq!((record.status, record.version, record.https_enabled), (Status::Running, 3, true));
        assert_eq!(record.address.unwrap().to_string(), "10.0.0.7:80");
        assert_eq!(change(None), Change::Gone { id: ID.parse().unwrap(), version: 3 });
    }

    #[test]
    fn who_may_log_in_is_told_in_few_bytes() {
        let ssh = |change: &dyn Fn(&mut Container)| {
            let mut container = Container { ssh_enabled: true, ssh_port: 22, ..container("10.0.0.7", 80) };
            change(&mut container);
            match super::tests::change(Some(container)) {
                Change::Is(record) => record.ssh,
                Change::Gone { .. } => panic!("it lives"),
            }
        };
        let fingerprint = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
        let known = ssh(&|it| it.ssh_host_key_fingerprint = fingerprint.to_owned()).unwrap();
        assert_eq!(known.port.map(NonZeroU16::get), Some(22));
        assert_eq!((known.host_key.unwrap().to_string().as_str(), known.only_keys), (fingerprint, None));
        assert_eq!(ssh(&|it| it.ssh_host_key_fingerprint = "SHA256:x".to_owned()).unwrap().host_key, None);
        assert_eq!(ssh(&|it| it.ssh_port = 0), Some(SshAccess::default()), "the platform starts what is asked for");
        for port in [-1, 65_536] {
            assert_eq!(ssh(&|it| it.ssh_port = port), None, "{port}");
        }
        assert_eq!(ssh(&|it| it.ssh_enabled = false), None);
        let restricted = ssh(&|it| (it.ssh_keys_restricted, it.ssh_key_ids) = (true, vec![7, 3]));
        assert_eq!(restricted.unwrap().only_keys.as_deref(), Some(&[3, 7][..]));
        assert_eq!(ssh(&|it| it.ssh_keys_restricted = true).unwrap().only_keys.as_deref(), Some(&[][..]));
    }

    #[test]
    fn an_address_that_is_none_is_not_taken_for_one() {
        let address = |address: &str, port| match change(Some(container(address, port))) {
            Change::Is(record) => record.address.map(|address| address.to_string()),
            Change::Gone { .. } => panic!("it lives"),
        };
        for (bad, port) in [("", 80), ("10.0.0.7", 0), ("10.0.0.7", 70_000), ("10.0.0.7", -1), ("a b", 80), ("a:1", 80)]
        {
            assert_eq!(address(bad, port), None, "{bad}:{port}");
        }
        assert_eq!(address("fd00::7", 80).as_deref(), Some("[fd00::7]:80"));
        assert_eq!(address("web.tenant-a.svc", 8080).as_deref(), Some("web.tenant-a.svc:8080"));
    }
}
