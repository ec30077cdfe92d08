//! Whom a message names.

use crate::id::{InvalidId, UserId};

/// A user as a message names them. Our own publishers set both; edd-cloud's set one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRef {
    /// The id that projections go by.
    pub uid: Option<UserId>,
    /// The number in auth_db.
    pub number: Option<i64>,
}

impl UserRef {
    /// Reads a pair of fields. Unset ones name nobody: a file may be deleted by the service itself.
    pub(crate) fn new(uid: &str, number: i64) -> Result<Self, InvalidId> {
        let uid = if uid.is_empty() { None } else { Some(uid.parse()?) };
        Ok(Self { uid, number: (number != 0).then_some(number) })
    }
}

/// A message that names a user: the one it is about, or an owner, an uploader, a deleter.
pub trait NamesUser {
    /// The user it names.
    ///
    /// # Errors
    /// The text id is set and is none.
    fn user(&self) -> Result<UserRef, InvalidId>;
}

/// Makes the implementations of the lines that `build.rs` writes: package, type, and the pair of fields.
macro_rules! users {
    ($($package:ident $message:ident $uid:ident $number:ident;)+) => {
        $(
            impl crate::user::NamesUser for crate::$package::$message {
                fn user(&self) -> Result<crate::user::UserRef, crate::id::InvalidId> {
                    crate::user::UserRef::new(&self.$uid, self.$number)
                }
            }
        )+
    };
}

pub(crate) use users;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth, compute, sfs};

    const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

    #[test]
    fn a_user_is_read_from_either_id_or_both() {
        let user =
            |uid: &str, user_id| auth::UserCreated { user_uid: uid.to_owned(), user_id, ..Default::default() }.user();
        let uid = UID.parse().ok();
        assert_eq!(user(UID, 42), Ok(UserRef { uid, number: Some(42) }));
        assert_eq!(user(UID, 0), Ok(UserRef { uid, number: None }));
        assert_eq!(user("", 42), Ok(UserRef { uid: None, number: Some(42) }));
        assert_eq!(user("", 0), Ok(UserRef { uid: None, number: None }));
        assert!(user("42", 42).is_err());
    }

    #[test]
    fn owners_uploaders_and_deleters_are_users() {
        let expected = Ok(UserRef { uid: UID.parse().ok(), number: Some(7) });
        let (uid, number) = (UID.to_owned(), 7);
        let key = compute::SshKeyDeleted { user_uid: uid.clone(), user_id: number, ..Default::default() };
        assert_eq!(key.user(), expected);
        let namespace = sfs::NamespaceCreated { owner_uid: uid.clone(), owner_id: number, ..Default::default() };
        assert_eq!(namespace.user(), expected);
        let upload = sfs::FileUploaded { uploader_uid: uid.clone(), uploader_id: number, ..Default::default() };
        assert_eq!(upload.user(), expected);
        let deletion = sfs::FileDeleted { deleter_uid: uid, deleter_id: number, ..Default::default() };
        assert_eq!(deletion.user(), expected);
    }
}
