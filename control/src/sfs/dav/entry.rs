//! What is told of a namespace, a folder or a file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dav_server::fs::{DavDirEntry, DavMetaData, FsFuture, FsResult};
use edd_events::clock::Micros;

use crate::sfs::model::{Entry, Namespace};

/// Its properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    size: u64,
    created_at: Micros,
    modified_at: Micros,
    is_folder: bool,
    /// Without quotes.
    etag: Option<String>,
}

impl Properties {
    /// The list of namespaces.
    pub(super) fn root() -> Self {
        Self { is_folder: true, ..Self::default() }
    }
}

impl From<&Namespace> for Properties {
    fn from(namespace: &Namespace) -> Self {
        let created_at = namespace.created_at;
        Self { created_at, modified_at: created_at, ..Self::root() }
    }
}

impl From<&Entry> for Properties {
    fn from(entry: &Entry) -> Self {
        Self {
            size: entry.size(),
            created_at: entry.created_at,
            modified_at: entry.modified_at,
            is_folder: entry.is_folder(),
            etag: entry.file.as_ref().map(|file| file.checksum.to_string()),
        }
    }
}

fn time(at: Micros) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.unsigned_abs())
}

impl DavMetaData for Properties {
    fn len(&self) -> u64 {
        self.size
    }

    fn modified(&self) -> FsResult<SystemTime> {
        Ok(time(self.modified_at))
    }

    fn created(&self) -> FsResult<SystemTime> {
        Ok(time(self.created_at))
    }

    fn is_dir(&self) -> bool {
        self.is_folder
    }

    fn etag(&self) -> Option<String> {
        self.etag.clone()
    }
}

/// One line of a folder's listing.
#[derive(Clone, Debug)]
pub(super) struct Line {
    name: String,
    properties: Properties,
}

impl From<&Namespace> for Line {
    fn from(namespace: &Namespace) -> Self {
        Self { name: namespace.name.to_string(), properties: namespace.into() }
    }
}

impl From<&Entry> for Line {
    fn from(entry: &Entry) -> Self {
        Self { name: entry.path.name().to_owned(), properties: entry.into() }
    }
}

impl DavDirEntry for Line {
    fn name(&self) -> Vec<u8> {
        self.name.clone().into_bytes()
    }

    fn metadata(&'_ self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        let properties: Box<dyn DavMetaData> = Box::new(self.properties.clone());
        Box::pin(std::future::ready(Ok(properties)))
    }
}
