//! What happened, told to the other services in the transaction of the change.

use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::sfs::{FileDeleted, FileUploaded, NamespaceCreated, NamespaceDeleted, NamespaceVisibilityChanged};
use sqlx::AnyConnection;

use crate::sfs::model::{FilePath, Namespace, Owner, Visibility};

fn number_of(owner: Option<Owner>) -> i64 {
    owner.map_or(0, |owner| owner.number)
}

fn uid_of(owner: Option<Owner>) -> String {
    owner.map(|owner| owner.user.to_string()).unwrap_or_default()
}

/// Tells of namespaces and files.
#[derive(Clone, Copy, Debug)]
pub(in crate::sfs) struct Teller<'a> {
    pub publisher: &'a Publisher,
    pub cause: &'a Cause,
}

impl Teller<'_> {
    /// All of these give the version of the namespace, or of its files, after it.
    pub async fn created(self, connection: &mut AnyConnection, namespace: &Namespace) -> Result<i64, PublishError> {
        let event = NamespaceCreated {
            namespace_id: namespace.number,
            owner_id: number_of(namespace.owner),
            owner_uid: uid_of(namespace.owner),
            name: namespace.name.to_string(),
            visibility: namespace.visibility.as_str().to_owned(),
            ..Default::default()
        };
        self.publisher.add(connection, event, self.cause).await
    }

    /// That its visibility was `old`, or that its name or its owner were others.
    pub async fn changed(
        self,
        connection: &mut AnyConnection,
        namespace: &Namespace,
        old: Visibility,
    ) -> Result<i64, PublishError> {
        let event = NamespaceVisibilityChanged {
            namespace_id: namespace.number,
            old_visibility: old.as_str().to_owned(),
            new_visibility: namespace.visibility.as_str().to_owned(),
            owner_id: number_of(namespace.owner),
            owner_uid: uid_of(namespace.owner),
            name: namespace.name.to_string(),
            ..Default::default()
        };
        self.publisher.add(connection, event, self.cause).await
    }

    pub async fn deleted(self, connection: &mut AnyConnection, namespace: &Namespace) -> Result<i64, PublishError> {
        let event = NamespaceDeleted {
            namespace_id: namespace.number,
            owner_id: number_of(namespace.owner),
            owner_uid: uid_of(namespace.owner),
            name: namespace.name.to_string(),
            ..Default::default()
        };
        self.publisher.add(connection, event, self.cause).await
    }

    pub async fn uploaded(
        self,
        connection: &mut AnyConnection,
        (namespace, path, size): (i64, &FilePath, u64),
        uploader: Owner,
    ) -> Result<i64, PublishError> {
        let event = FileUploaded {
            namespace_id: namespace,
            path: path.to_string(),
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            uploader_id: uploader.number,
            uploader_uid: uploader.user.to_string(),
            ..Default::default()
        };
        self.publisher.add(connection, event, self.cause).await
    }

    pub async fn removed(
        self,
        connection: &mut AnyConnection,
        (namespace, path): (i64, &FilePath),
        // None: nobody's will, its bytes were lost.
        deleter: Option<Owner>,
    ) -> Result<i64, PublishError> {
        let event = FileDeleted {
            namespace_id: namespace,
            path: path.to_string(),
            deleter_id: number_of(deleter),
            deleter_uid: uid_of(deleter),
            ..Default::default()
        };
        self.publisher.add(connection, event, self.cause).await
    }
}
