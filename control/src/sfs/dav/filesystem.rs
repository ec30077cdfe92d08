//! What `dav-server` takes for a file system.

use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavMetaData, FsError, FsFuture, FsStream, GuardedFileSystem, OpenOptions, ReadDirMeta,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::entry::{Line, Properties};
use super::file::Upload;
use super::{Request, Spot};
use crate::error::Error;
use crate::sfs::error::SfsError;
use crate::sfs::model::{FilePath, MediaType, NamespaceName, Replace, Target, Visibility, Visitor};
use crate::sfs::service::{Deletion, Listed, Listing, MAX_LISTED, NewNamespace, Place, Service, To};

#[derive(Clone, Debug)]
pub(super) struct Filesystem(Service);

impl Filesystem {
    pub(super) fn new(service: Service) -> Self {
        Self(service)
    }

    async fn properties(&self, spot: &Spot, request: &Request) -> Result<Properties, Error> {
        Ok(match spot {
            Spot::Root => Properties::root(),
            Spot::Namespace(name) => {
                let name = known(name)?;
                (&self.0.namespace(&request.visitor(Some(&name))?, &name).await?).into()
            }
            Spot::Entry(Place { namespace, path }) => {
                (&self.0.stat(&request.visitor(Some(namespace))?, namespace, path).await?).into()
            }
        })
    }

    /// Whether there is a folder at `spot`, or a namespace.
    async fn is_folder(&self, spot: &Spot, request: &Request) -> Result<bool, Error> {
        match self.properties(spot, request).await {
            Ok(properties) => Ok(properties.is_dir()),
            Err(error) if error.status() == http::StatusCode::NOT_FOUND => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, place: Place, options: &OpenOptions, request: &Request) -> Result<Upload, Error> {
        let actor = request.actor("write", Some(&place.namespace))?;
        let target = Target {
            media_type: MediaType::of_name(&place.path),
            namespace: place.namespace,
            path: place.path,
            replace: request.replace(),
            declared_bytes: options.size,
        };
        let incoming = self.0.begin(&actor, target, request.cause()).await?;
        Ok(Upload::new(request.clone(), incoming))
    }

    async fn list(&self, spot: Spot, request: &Request) -> Result<FsStream<Box<dyn DavDirEntry>>, Error> {
        match spot {
            // It goes, or goes along, in one step with the folder that it is in.
            spot if request.takes_whole(&spot) => Ok(stream::empty().boxed()),
            Spot::Root => self.namespaces(request).await,
            Spot::Namespace(name) => Ok(self.entries(known(&name)?, None, request)?),
            Spot::Entry(place) => Ok(self.entries(place.namespace, Some(place.path), request)?),
        }
    }

    /// The caller's own.
    async fn namespaces(&self, request: &Request) -> Result<FsStream<Box<dyn DavDirEntry>>, Error> {
        let actor = Visitor::User(request.actor("read", None)?);
        let mut lines: Vec<Box<dyn DavDirEntry>> = Vec::new();
        let mut after: Option<NamespaceName> = None;
        loop {
            let page = self.0.namespaces(&actor, Listed::Own, after.as_ref(), MAX_LISTED).await?;
            lines.extend(page.iter().map(|namespace| Box::new(Line::from(namespace)) as Box<dyn DavDirEntry>));
            match page.last() {
                Some(last) if page.len() == MAX_LISTED as usize => after = Some(last.name.clone()),
                _ => return Ok(stream::iter(lines.into_iter().map(Ok)).boxed()),
            }
        }
    }

    /// A page at a time, as they are asked for.
    fn entries(
        &self,
        namespace: NamespaceName,
        folder: Option<FilePath>,
        request: &Request,
    ) -> Result<FsStream<Box<dyn DavDirEntry>>, Error> {
        let (service, request) = (self.0.clone(), request.clone());
        let visitor = request.visitor(Some(&namespace))?;
        let first = Listing { folder, is_deep: false, after: None, most: MAX_LISTED };
        let pages = stream::try_unfold(Some(first), move |listing| {
            let (service, request, namespace) = (service.clone(), request.clone(), namespace.clone());
            async move {
                let Some(listing) = listing else { return Ok(None) };
                let page = service.list(&visitor, &namespace, &listing).await;
                let page = page.map_err(|error| request.refuse(error.into()))?;
                let last = page.last().filter(|_| page.len() == listing.most as usize).map(|entry| entry.path.clone());
                let next = last.map(|last| Listing { after: Some(last), ..listing });
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        let lines = pages.try_flatten().map_ok(|entry| Box::new(Line::from(&entry)) as Box<dyn DavDirEntry>);
        Ok(lines.boxed())
    }

    async fn make(&self, spot: Spot, request: &Request) -> Result<(), Error> {
        match spot {
            Spot::Root => Err(Error::conflict("this is the list of namespaces")),
            Spot::Namespace(name) => {
                let name: NamespaceName = name.parse().map_err(SfsError::from)?;
                let actor = request.actor("write", Some(&name))?;
                let new = NewNamespace { name, visibility: Visibility::Private, is_hidden: false };
                self.0.create_namespace(&actor, new, request.cause()).await?;
                Ok(())
            }
            Spot::Entry(place) => {
                let actor = request.actor("write", Some(&place.namespace))?;
                self.0.make_folder(&actor, &place.namespace, &place.path, request.cause()).await?;
                Ok(())
            }
        }
    }

    async fn remove(&self, spot: Spot, is_recursive: bool, request: &Request) -> Result<(), Error> {
        let place = spot.entry().ok_or_else(no_namespace)?;
        let actor = request.actor("delete", Some(&place.namespace))?;
        let deletion = Deletion { is_recursive, expected: None };
        Ok(self.0.delete_entry(&actor, &place.namespace, &place.path, deletion, request.cause()).await?)
    }

    async fn copy_whole(&self, from: Place, to: Place, request: &Request) -> Result<(), Error> {
        request.visitor(Some(&from.namespace))?;
        let actor = request.actor("write", Some(&to.namespace))?;
        let to = To { namespace: to.namespace, path: to.path, replace: Replace::Always };
        self.0.copy_entry(&actor, &from, &to, request.cause()).await?;
        Ok(())
    }

    async fn move_whole(&self, from: Place, to: Place, request: &Request) -> Result<(), Error> {
        request.actor("delete", Some(&from.namespace))?;
        let actor = request.actor("write", Some(&to.namespace))?;
        let to = To { namespace: to.namespace, path: to.path, replace: Replace::Always };
        self.0.move_entry(&actor, &from, &to, request.cause()).await?;
        Ok(())
    }

    /// Whether a file takes the place of the one at `spot`, which then stays until it does.
    async fn is_replaced(&self, spot: &Spot, request: &Request) -> Result<bool, Error> {
        match request.target() {
            Some(source) if request.is_destination(spot) => Ok(!self.is_folder(source, request).await?),
            _ => Ok(false),
        }
    }
}

/// A name that a namespace can have; others are those of none.
fn known(name: &str) -> Result<NamespaceName, SfsError> {
    name.parse().map_err(|_| SfsError::NotFound("namespace"))
}

fn no_namespace() -> Error {
    Error::forbidden("a namespace is deleted, moved and copied by the API alone, not over WebDAV")
}

/// Both ends of a COPY or a MOVE.
fn places(from: &DavPath, to: &DavPath) -> Result<(Place, Place), Error> {
    let place = |path| Spot::of(path)?.entry().ok_or_else(no_namespace);
    Ok((place(from)?, place(to)?))
}

impl GuardedFileSystem<Request> for Filesystem {
    fn open<'a>(
        &'a self,
        path: &'a DavPath,
        options: OpenOptions,
        request: &'a Request,
    ) -> FsFuture<'a, Box<dyn DavFile>> {
        Box::pin(async move {
            // A part of a file is never written by itself. Who locks a name that is free means to put a file there.
            if !options.write || options.append || !(options.truncate || request.is_lock()) {
                return Err(FsError::NotImplemented);
            }
            let spot = Spot::of(path).map_err(|error| request.refuse(error.into()))?;
            if !self.is_folder(&spot.parent(), request).await.map_err(|error| request.refuse(error))? {
                return Err(FsError::NotFound);
            }
            let place = spot.entry().ok_or_else(|| request.refuse(Error::conflict("there is a folder already")))?;
            let mut upload = self.begin(place, &options, request).await.map_err(|error| request.refuse(error))?;
            if request.is_lock() {
                upload.flush().await?;
            }
            Ok(Box::new(upload) as Box<dyn DavFile>)
        })
    }

    fn read_dir<'a>(
        &'a self,
        path: &'a DavPath,
        _: ReadDirMeta,
        request: &'a Request,
    ) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        request.tell(async move { self.list(Spot::of(path)?, request).await })
    }

    fn metadata<'a>(&'a self, path: &'a DavPath, request: &'a Request) -> FsFuture<'a, Box<dyn DavMetaData>> {
        request.tell(async move {
            let properties = self.properties(&Spot::of(path)?, request).await?;
            Ok(Box::new(properties) as Box<dyn DavMetaData>)
        })
    }

    fn create_dir<'a>(&'a self, path: &'a DavPath, request: &'a Request) -> FsFuture<'a, ()> {
        Box::pin(async move {
            let refuse = |error| request.refuse(error);
            let spot = Spot::of(path).map_err(|error| refuse(error.into()))?;
            if !self.is_folder(&spot.parent(), request).await.map_err(refuse)? {
                return Err(FsError::NotFound);
            }
            if self.properties(&spot, request).await.is_ok() {
                return Err(FsError::Exists);
            }
            let made = match (request.target().cloned().and_then(Spot::entry), spot.clone().entry()) {
                (Some(from), Some(to)) if request.copies_whole(&spot) => self.copy_whole(from, to, request).await,
                _ => self.make(spot, request).await,
            };
            made.map_err(refuse)
        })
    }

    fn remove_dir<'a>(&'a self, path: &'a DavPath, request: &'a Request) -> FsFuture<'a, ()> {
        request.tell(async move {
            let spot = Spot::of(path)?;
            let is_recursive = request.takes_whole(&spot);
            self.remove(spot, is_recursive, request).await
        })
    }

    fn remove_file<'a>(&'a self, path: &'a DavPath, request: &'a Request) -> FsFuture<'a, ()> {
        request.tell(async move {
            let spot = Spot::of(path)?;
            match self.is_replaced(&spot, request).await? {
                true => Ok(()),
                false => self.remove(spot, false, request).await,
            }
        })
    }

    fn rename<'a>(&'a self, from: &'a DavPath, to: &'a DavPath, request: &'a Request) -> FsFuture<'a, ()> {
        request.tell(async move {
            let (from, to) = places(from, to)?;
            self.move_whole(from, to, request).await
        })
    }

    fn copy<'a>(&'a self, from: &'a DavPath, to: &'a DavPath, request: &'a Request) -> FsFuture<'a, ()> {
        request.tell(async move {
            let (from, to) = places(from, to)?;
            self.copy_whole(from, to, request).await
        })
    }

    fn get_quota<'a>(&'a self, request: &'a Request) -> FsFuture<'a, (u64, Option<u64>)> {
        request.tell(async move {
            let usage = self.0.usage(&request.actor("read", None)?).await?;
            Ok((usage.used_bytes + usage.reserved_bytes, Some(usage.most_bytes)))
        })
    }
}
