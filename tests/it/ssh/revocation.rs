//! What ends a session while it is in use: both legs of it, at once, whatever the client does, and nobody else's.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::site::{Identity, Site};
use super::tenancy::{newcomer, register};
use super::transfer::Transfer;
use crate::harness::{Deployment, Made, Tenant, until};

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

    /// What is noted as a session's reason to end.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::KeyDeleted => &["unknown_key"],
            Self::SshSwitchedOff => &["ssh_off"],
            Self::RestrictedToAnotherKey => &["key_not_chosen"],
            // The container's own server may be gone a moment before that is told.
            Self::ContainerStopped => &["container_stopped", "container_closed"],
            Self::ContainerHibernated => &["container_asleep", "container_closed"],
            Self::ContainerDeleted => &["unknown_container", "container_stopped", "container_closed"],
            Self::UserDeleted => &["unknown_container", "unknown_key", "container_stopped", "container_closed"],
        }
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
        let why = format!("{cause:?}");
        tokio::join!(reading.ends_at_once(&why, site.port, false), frozen.ends_at_once(&why, site.port, true));
        check_words(&deployment, cause, &made).await;
        assert_ne!(reading.exit().expect("it ended").code(), Some(0), "{cause:?}: a success");
        check_next_login(cause, &site).await;
    }
    assert!(witness.is_running(), "somebody else's session ended, too");
    drop(witness);
    deployment.stop().await;
}

/// Both sessions were ended by what happened, and not by something that ends them later on.
async fn check_words(deployment: &Deployment, cause: Cause, made: &Made) {
    until("the end of two sessions", async || {
        let lines = deployment.gateway().log();
        let ends = lines.iter().filter(|line| line.field("event") == "ssh_end" && line.field("container") == made.id);
        let words: Vec<_> = ends.map(|line| line.field("reason")).filter(|word| word != "client_left").collect();
        if words.len() < 2 {
            return Err(format!("{words:?}"));
        }
        assert!(words.iter().all(|word| cause.words().contains(&word.as_str())), "{cause:?}: {words:?}");
        Ok(())
    })
    .await;
}

async fn check_next_login(cause: Cause, site: &Site) {
    if cause.lets_in_again() {
        return site.until_login().await;
    }
    let output = site.ssh(&["gw", "echo in"]).run().await;
    assert_eq!((output.code, output.stdout.as_str()), (Some(255), ""), "{cause:?}: {output:?}");
}
