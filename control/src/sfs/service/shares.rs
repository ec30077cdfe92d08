//! Share links: made and revoked by who owns the namespace, opened by whoever has the link.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edd_events::clock::{Micros, micros};
use sha2::{Digest, Sha256};

use super::{Listing, Opened, Service};
use crate::entropy::{Entropy, Secret};
use crate::limiter::{Limit, Limiter, Network, TooOften};
use crate::password::{Hasher, Password, PasswordConfig, PasswordError, Verdict};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Entry, FilePath, Namespace, NamespaceName, NewShare, Share};
use crate::sfs::store::{files, namespaces, owners, shares};

/// Passwords that one network may try at one link, and all of them together.
const TRIES: Limit = Limit { tries: 10, window: Duration::from_secs(900) };
const TRIES_OF_ALL: Limit = Limit { tries: 300, window: Duration::from_secs(900) };
/// Links whose password was right of late: a film is fetched in many requests.
const MAX_OPENED: usize = 1024;
const OPENED_FOR: Duration = Duration::from_secs(600);
/// Links that one page has at most.
const MAX_LISTED: u32 = 1000;
/// How long a link is listed that is over, and how many are forgotten in one go.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(30 * 86_400);
const FORGOTTEN_AT_ONCE: u32 = 500;

/// Why a link opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Unknown, expired, used up and revoked alike, and a path that is not below it.
    #[error("there is no such share: its link is wrong, or it is over")]
    NotFound,
    /// None was given, or a wrong one.
    #[error("this share has a password")]
    Password,
    #[error(transparent)]
    TooOften(#[from] TooOften),
    #[error(transparent)]
    Hash(#[from] PasswordError),
    #[error(transparent)]
    Sfs(#[from] SfsError),
}

impl From<sqlx::Error> for ShareError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sfs(error.into())
    }
}

/// A link that was found to be good, for who opened it.
#[derive(Clone, Debug)]
pub struct Open {
    share: Share,
    namespace: Namespace,
}

/// All links; clones share what they remember.
#[derive(Clone, Debug)]
pub struct Shares {
    service: Service,
    hasher: Hasher,
    entropy: Entropy,
    tries: Arc<Limiter<(i64, Network)>>,
    tries_of_all: Arc<Limiter<i64>>,
    opened: Arc<Mutex<HashMap<[u8; 32], Micros>>>,
}

impl Shares {
    /// # Errors
    /// Argon2 does not take its parameters.
    pub fn new(service: &Service, passwords: &PasswordConfig, entropy: Entropy) -> Result<Self, PasswordError> {
        let clock = &service.0.foundation.clock;
        Ok(Self {
            service: service.clone(),
            hasher: Hasher::new(passwords, entropy.clone())?,
            entropy,
            tries: Arc::new(Limiter::new(TRIES, clock.clone())),
            tries_of_all: Arc::new(Limiter::new(TRIES_OF_ALL, clock.clone())),
            opened: Arc::default(),
        })
    }

    /// Makes a link to something in a namespace of the actor's own. The secret is told now and never again.
    ///
    /// # Errors
    /// There is no such thing, it is not theirs, or they have too many links.
    pub async fn create(&self, actor: &Actor, new: NewShare) -> Result<(Share, Secret), ShareError> {
        new.check().map_err(SfsError::from)?;
        let namespace = self.service.writable(actor, &new.namespace).await?;
        if namespace.owner.is_none_or(|owner| owner.user != actor.owner.user) {
            return Err(SfsError::NotYours.into());
        }
        if let Some(path) = &new.path {
            let found = files::at(self.service.database().reader(), namespace.number, path).await?;
            found.ok_or(SfsError::NotFound("file or folder"))?;
        }
        let password = match &new.password {
            Some(password) => Some(self.hasher.hash(password).await?),
            None => None,
        };
        let (now, secret) = (self.service.now(), self.entropy.secret(""));
        let share = Share {
            number: 0,
            namespace: namespace.number,
            path: new.path,
            made_by: actor.owner,
            password,
            expires_at: new.expires_in_seconds.map(|seconds| now.saturating_add(micros(Duration::from_secs(seconds)))),
            downloads_left: new.downloads,
            downloads: 0,
            created_at: now,
        };
        let mut transaction = self.service.begin_change().await?;
        if !owners::lock(&mut transaction, actor.owner.user).await? {
            return Err(SfsError::OwnerGone.into());
        }
        let most = self.service.config().quotas.shares;
        if shares::count_of(&mut *transaction, actor.owner.user).await? >= i64::from(most) {
            return Err(SfsError::Count { what: "share links", most }.into());
        }
        let share = shares::insert(&mut *transaction, secret.sha256(), &share).await?;
        self.service.commit(transaction).await?;
        Ok((share, secret))
    }

    /// A page of the actor's links, the oldest first, from beyond the number `after`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list(&self, actor: &Actor, after: i64, most: u32) -> Result<Vec<(Share, NamespaceName)>, ShareError> {
        let reader = self.service.database().reader();
        Ok(shares::of_user(reader, actor.owner.user, after, most.min(MAX_LISTED)).await?)
    }

    /// Ends a link of the actor's.
    ///
    /// # Errors
    /// They have no such one.
    pub async fn revoke(&self, actor: &Actor, number: i64) -> Result<(), ShareError> {
        let writer = self.service.database().writer();
        match shares::delete(writer, actor.owner.user, number).await? {
            true => Ok(()),
            false => Err(SfsError::NotFound("share").into()),
        }
    }

    /// Opens a link for somebody who comes from `network`.
    ///
    /// # Errors
    /// It is not good, or they do not know its password.
    pub async fn open(
        &self,
        token: &Secret,
        password: Option<&Password>,
        network: Network,
    ) -> Result<Open, ShareError> {
        let reader = self.service.database().reader();
        let share = shares::by_token(reader, token.sha256()).await?.ok_or(ShareError::NotFound)?;
        let namespace = namespaces::by_number(reader, share.namespace).await?.ok_or(ShareError::NotFound)?;
        let is_owned = namespace.owner.is_some_and(|owner| owner.user == share.made_by.user);
        if !share.is_good(self.service.now()) || !is_owned {
            return Err(ShareError::NotFound);
        }
        if let Some(hash) = &share.password {
            let password = password.ok_or(ShareError::Password)?;
            self.check(&share, hash, password, network).await?;
        }
        Ok(Open { share, namespace })
    }

    async fn check(&self, share: &Share, hash: &str, password: &Password, network: Network) -> Result<(), ShareError> {
        // With the hash, so that it stands for this link alone.
        let known = Sha256::new().chain_update(hash).chain_update([0]).chain_update(password.as_bytes());
        let (known, now) = (known.finalize().into(), self.service.now());
        let until = self.lock_opened().get(&known).copied();
        if until.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.tries.admit(&(share.number, network))?;
        self.tries_of_all.admit(&share.number)?;
        if self.hasher.verify(password, Some(hash)).await? == Verdict::Wrong {
            return Err(ShareError::Password);
        }
        let mut opened = self.lock_opened();
        if opened.len() >= MAX_OPENED {
            opened.retain(|_, until| now < *until);
        }
        if opened.len() < MAX_OPENED {
            opened.insert(known, now.saturating_add(micros(OPENED_FOR)));
        }
        Ok(())
    }

    fn lock_opened(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Micros>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a link leads to, or what is at `below` in the folder that it leads to. None: all of a namespace.
    ///
    /// # Errors
    /// There is nothing.
    pub async fn entry(&self, open: &Open, below: Option<&str>) -> Result<Option<Entry>, ShareError> {
        let Some(path) = open.path(below)? else { return Ok(None) };
        let found = files::at(self.service.database().reader(), open.namespace.number, &path).await?;
        found.map(Some).ok_or(ShareError::NotFound)
    }

    /// The file that a link leads to.
    ///
    /// # Errors
    /// There is none.
    pub async fn file(&self, open: &Open, below: Option<&str>) -> Result<Opened, ShareError> {
        let path = open.path(below)?.ok_or(ShareError::NotFound)?;
        match self.service.open_in(open.namespace.clone(), &path).await {
            Err(SfsError::NotFound(_)) => Err(ShareError::NotFound),
            opened => Ok(opened?),
        }
    }

    /// A page of what is in a folder that a link leads to, by name.
    ///
    /// # Errors
    /// There is no such folder.
    pub async fn list_in(
        &self,
        open: &Open,
        below: Option<&str>,
        after: Option<FilePath>,
        most: u32,
    ) -> Result<Vec<Entry>, ShareError> {
        let listing = Listing { folder: open.path(below)?, is_deep: false, after, most };
        match self.service.list_in(&open.namespace, &listing).await {
            Err(SfsError::NotFound(_)) => Err(ShareError::NotFound),
            entries => Ok(entries?),
        }
    }

    /// Counts a download, before its first byte.
    ///
    /// # Errors
    /// The link was used up or ended a moment ago.
    pub async fn count(&self, open: &Open) -> Result<(), ShareError> {
        let writer = self.service.database().writer();
        match shares::use_once(writer, open.share.number, self.service.now()).await? {
            true => Ok(()),
            false => Err(ShareError::NotFound),
        }
    }
}

impl Open {
    /// Where in the namespace that is; none: the namespace itself.
    fn path(&self, below: Option<&str>) -> Result<Option<FilePath>, ShareError> {
        let Some(below) = below else { return Ok(self.share.path.clone()) };
        self.within(below).map(Some)
    }

    /// Where in the namespace is what who has the link calls `below`.
    ///
    /// # Errors
    /// It is no path.
    pub fn within(&self, below: &str) -> Result<FilePath, ShareError> {
        FilePath::join(self.share.path.as_ref(), below).map_err(|_| ShareError::NotFound)
    }

    /// What of a path in the namespace is below the link, as who has the link sees it.
    pub fn below<'p>(&self, path: &'p FilePath) -> &'p str {
        let own = self.share.path.as_ref().map_or("", FilePath::as_str);
        path.as_str().strip_prefix(own).unwrap_or(path.as_str()).trim_start_matches('/')
    }
}

impl Service {
    /// Forgets some of the links that have been over for long. Whether there are more.
    ///
    /// # Errors
    /// The database fails.
    pub async fn forget_shares(&self) -> Result<bool, SfsError> {
        let before = self.now().saturating_sub(micros(KEPT_AFTER_EXPIRY));
        Ok(shares::forget_expired(self.database().writer(), before, FORGOTTEN_AT_ONCE).await?)
    }
}
