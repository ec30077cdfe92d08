//! What an operator decides about the auth service.

use std::time::Duration;

use crate::access_token::DEFAULT_ISSUER;
use crate::auth::model::{NewPassword, Username};
use crate::limiter::Limit;
use crate::password::PasswordConfig;
use crate::service_key::ServiceKey;

/// Everything about it. `Default` is what `edd up` runs with, but for the dashboard's host.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `iss` of access tokens.
    pub issuer: String,
    pub registration: Registration,
    /// The host that browsers sign in on, without a port: it alone gets cookies and the sign-in page.
    pub dashboard_host: String,
    /// What other services show to read all users. None: nobody may, over HTTP.
    pub service_key: Option<ServiceKey>,
    pub first_admin: FirstAdmin,
    pub passwords: PasswordConfig,
    pub limits: Limits,
    pub lifetimes: Lifetimes,
    pub keys: KeyTimes,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            issuer: DEFAULT_ISSUER.to_owned(),
            registration: Registration::Open,
            dashboard_host: "cloud.localhost".to_owned(),
            service_key: None,
            first_admin: FirstAdmin { username: "admin".parse().expect("five letters are a username"), password: None },
            passwords: PasswordConfig::default(),
            limits: Limits::default(),
            lifetimes: Lifetimes::default(),
            keys: KeyTimes::default(),
        }
    }
}

/// Who may make an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Whoever reaches the service.
    Open,
    /// Administrators, for others.
    Closed,
}

/// The administrator that the first start creates.
#[derive(Clone, Debug)]
pub struct FirstAdmin {
    pub username: Username,
    /// None: a random one.
    pub password: Option<NewPassword>,
}

/// How often passwords may be tried. Each process counts for itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Logins from one address (a /64 of IPv6), whoever they are for.
    pub logins_per_address: Limit,
    /// Logins to one account, from wherever. Addresses where the account has a session count for themselves, so that a
    /// stranger who uses this number up does not lock out who is at home.
    pub logins_per_account: Limit,
    /// Accounts that are registered from one address.
    pub registrations_per_address: Limit,
    /// Refreshes of one session.
    pub refreshes_per_session: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let in_15_minutes = |tries| Limit { tries, window: Duration::from_secs(15 * 60) };
        Self {
            logins_per_address: in_15_minutes(20),
            logins_per_account: in_15_minutes(10),
            registrations_per_address: in_15_minutes(50),
            refreshes_per_session: in_15_minutes(30),
        }
    }
}

/// How long what is given out is good.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// An access token of a session that is refreshed.
    pub access_token: Duration,
    /// A session that is refreshed, from login on.
    pub refreshed_session: Duration,
    /// A session of a client that knows no refreshing, and its one access token. Old clients do not; since sessions are
    /// revoked by event, long tokens cost nothing but a longer list of revocations.
    pub plain_session: Duration,
    /// After its use, a refresh token is taken once more for this long, provided that what it was replaced by is unused:
    /// the answer was lost, or two tabs asked at once. What it was replaced by is then used up, so that of a thief and
    /// a victim the second to refresh is still found out, and the session ends.
    pub refresh_grace: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: Duration::from_secs(15 * 60),
            refreshed_session: Duration::from_secs(30 * 24 * 3600),
            plain_session: Duration::from_secs(24 * 3600),
            refresh_grace: Duration::from_secs(10),
        }
    }
}

/// When signing keys follow one another.
#[derive(Clone, Copy, Debug)]
pub struct KeyTimes {
    /// How long a key signs.
    pub rotation: Duration,
    /// How long before that it is published. Longer than anybody caches a key set.
    pub lead: Duration,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self { rotation: Duration::from_secs(30 * 24 * 3600), lead: Duration::from_secs(24 * 3600) }
    }
}
