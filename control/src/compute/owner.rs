//! The compute service as gateways see it: the tables that they keep copies of.

use async_trait::async_trait;
use edd_events::compute_cache::{containers, ingress_requests, ssh_keys};
use edd_events::database::Database;
use edd_events::projection::{Digest, DigestBuilder, Entry, Owner, OwnerError, Page, Shape};

use crate::compute::model::{Container, Rule, SshKey};
use crate::compute::store;

/// Rows read in one go for a digest.
const PAGE_ROWS: u32 = 1000;

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Containers,
    SshKeys,
    IngressRequests,
}

impl Table {
    /// Its copies' shape.
    pub fn shape(self) -> &'static Shape {
        match self {
            Self::Containers => &containers::SHAPE,
            Self::SshKeys => &ssh_keys::SHAPE,
            Self::IngressRequests => &ingress_requests::SHAPE,
        }
    }

    /// The table in a compute database.
    pub fn of(self, database: Database) -> Owned {
        Owned { table: self, database }
    }
}

/// A table of a compute database, to be copied.
#[derive(Clone, Debug)]
pub struct Owned {
    table: Table,
    database: Database,
}

fn container(container: Container) -> Entry {
    let told = container.deleted_at.is_none().then(|| container.told());
    containers::entry(container.id, container.version, told)
}

fn ssh_key(key: SshKey) -> Entry {
    let SshKey { number, owner, name, fingerprint, public_key, .. } = key;
    let told = ssh_keys::SshKey { id: number, owner, name, fingerprint, public_key };
    ssh_keys::entry(number, key.version, key.deleted_at.is_none().then_some(told))
}

fn ingress_request(rule: Rule) -> Entry {
    let (container, port) = (rule.container, i32::from(rule.port));
    let told = ingress_requests::IngressRequest {
        container,
        port,
        target_port: rule.target_port.into(),
        protocol: rule.protocol,
        request_id: rule.number,
    };
    ingress_requests::entry(container, port, rule.version, rule.deleted_at.is_none().then_some(told))
}

#[async_trait]
impl Owner for Owned {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let (reader, after, wanted) = (self.database.reader(), after.as_deref(), most.saturating_add(1));
        let entries = match self.table {
            Table::Containers => {
                store::containers::page(reader, after, wanted, true).await.map(|rows| entries(rows, container))
            }
            Table::SshKeys => store::ssh_keys::page(reader, after, wanted).await.map(|rows| entries(rows, ssh_key)),
            Table::IngressRequests => {
                store::ingress::page(reader, after, wanted).await.map(|rows| entries(rows, ingress_request))
            }
        };
        let mut entries = entries.map_err(|error| OwnerError::Unavailable(error.to_string()))?;
        let more = entries.len() > most as usize;
        entries.truncate(most as usize);
        Ok(Page { entries, more })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let mut digest = DigestBuilder::default();
        let mut after = None;
        loop {
            let page = self.page(after, PAGE_ROWS).await?;
            for entry in &page.entries {
                digest.add(entry).map_err(|error| OwnerError::Invalid(error.to_string()))?;
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                return Ok(digest.finish());
            }
        }
    }
}

fn entries<T>(rows: Vec<T>, entry: impl Fn(T) -> Entry) -> Vec<Entry> {
    rows.into_iter().map(entry).collect()
}
