//! A file that is being put.

use std::fmt;
use std::io::SeekFrom;

use bytes::{Buf, Bytes};
use dav_server::fs::{DavFile, DavMetaData, FsError, FsFuture};

use super::Request;
use super::entry::Properties;
use crate::sfs::service::Incoming;

/// Nothing is changed before it is flushed, which `dav-server` does once, after the last byte. A body that breaks off
/// never gets there.
pub(super) struct Upload {
    request: Request,
    /// None once it is flushed.
    incoming: Option<Incoming>,
    properties: Properties,
}

impl Upload {
    pub(super) fn new(request: Request, incoming: Incoming) -> Self {
        Self { request, incoming: Some(incoming), properties: Properties::default() }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("request", &self.request).finish_non_exhaustive()
    }
}

impl DavFile for Upload {
    fn metadata(&'_ mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        let properties: Box<dyn DavMetaData> = Box::new(self.properties.clone());
        Box::pin(std::future::ready(Ok(properties)))
    }

    fn write_buf(&'_ mut self, mut buf: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        self.write_bytes(bytes)
    }

    fn write_bytes(&'_ mut self, bytes: Bytes) -> FsFuture<'_, ()> {
        Box::pin(async move {
            let Some(incoming) = &mut self.incoming else { return Err(FsError::GeneralFailure) };
            let written = incoming.write(bytes).await;
            written.map_err(|error| self.request.refuse(error.into()))
        })
    }

    fn flush(&'_ mut self) -> FsFuture<'_, ()> {
        Box::pin(async move {
            let Some(incoming) = self.incoming.take() else { return Ok(()) };
            let entry = incoming.finish(None).await.map_err(|error| self.request.refuse(error.into()))?;
            self.properties = (&entry).into();
            Ok(())
        })
    }

    fn read_bytes(&'_ mut self, _: usize) -> FsFuture<'_, Bytes> {
        Box::pin(std::future::ready(Err(FsError::NotImplemented)))
    }

    fn seek(&'_ mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        Box::pin(std::future::ready(Err(FsError::NotImplemented)))
    }
}
