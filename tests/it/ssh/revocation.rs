//! What ends a session while it is in use: both legs of it, at once, whatever the client does, and nobody else's.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::site::{Identity, Site};
use super::tenancy::{newcomer, register};
use super::transfer::Transfer;
use crate::harness::{Deployment, Made, Tenant};

/// A second from the answer to whoever revoked it, and another for a machine that runs other tests meanwhile.
pub const AT_ONCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
enum Cause {
    KeyDeleted,
    SshSwitchedOff,
    RestrictedToAnotherKey,
    ContainerStopped,
    ContainerHibernated,
    ContainerDeleted,
    UserDeleted,
}

impl Cause {
    const ALL: [Self; 7] = [
        Self::KeyDeleted,
        Self::SshSwitchedOff,
        Self::RestrictedToAnotherKey,
        Self::ContainerStopped,
        Self::ContainerHibernated,
        Self::ContainerDeleted,
        Self::UserDeleted,
    ];

    async fn happen(self, deployment: &Deployment, tenant: &Tenant<'_>, made: &Made, key: i64) {
        let container = format!("/compute/containers/{}", made.id);
        match self {
            Self::KeyDeleted => tenant.done(&format!("DELETE /compute/ssh-keys/{key}"), Value::Null).await,
            Self::SshSwitchedOff => tenant.done(&format!("PUT {container}/ssh"), json!({"ssh_enabled": false})).await,
            Self::RestrictedToAnotherKey => {
                let other = register(tenant, &Identity::new()).await;
                tenant.done(&format!("PUT {container}/ssh"), json!({"ssh_key_ids": [other]})).await
            }
            Self::ContainerStopped => tenant.done(&format!("POST {container}/stop"), Value::Null).await,
            Self::ContainerHibernated => tenant.done(&format!("POST {container}/hibernate"), Value::Null).await,
            Self::ContainerDeleted => tenant.done(&format!("DELETE {container}"), Value::Null).await,
            Self::UserDeleted => {
                deployment.delete(&tenant.user.id).await;
                Value::Null
            }
        };
    }

    /// Whether a login is still a login: one that sleeps is woken by it.
    fn lets_in_again(self) -> bool {
        matches!(self, Self::ContainerHibernated)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_at_once_with_its_right() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    let (_witness_tenant, _, witness_site, _) = newcomer(&deployment).await;
    let mut witness = Transfer::begin(&witness_site).await;
    let newcomers = join_all(Cause::ALL.map(|_| newcomer(&deployment))).await;
    for (cause, (tenant, made, site, key)) in Cause::ALL.into_iter().zip(newcomers) {
        eprintln!("case: {cause:?}");
        let (mut reading, mut frozen) = tokio::join!(Transfer::begin(&site), Transfer::begin(&site));
        frozen.freeze();
        cause.happen(&deployment, &tenant, &made, key).await;
        let since = Instant::now();
        let (read, froze) = tokio::join!(reading.ended(since, site.port, false), frozen.ended(since, site.port, true));
        assert!(read.max(froze) < AT_ONCE, "{cause:?}: {read:?}, and {froze:?} of a client that is stopped");
        assert_ne!(reading.exit().expect("it ended").code(), Some(0), "{cause:?}: a success");
        check_next_login(cause, &site).await;
    }
    assert!(witness.is_running(), "somebody else's session ended, too");
    drop(witness);
    deployment.stop().await;
}

async fn check_next_login(cause: Cause, site: &Site) {
    if cause.lets_in_again() {
        return site.until_login().await;
    }
    let output = site.ssh(&["gw", "echo in"]).run().await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(255), ""), "{cause:?}: {output:?}");
}
