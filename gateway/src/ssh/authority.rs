//! Who lets a session in at a container: each gets a key of its own and a certificate for it, of which the container's
//! sshd knows the signer. Neither outlives the session, and no user's signature could be passed on anyway.

use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::{Clock, Micros};
use edd_proto::{ContainerId, UserId};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{self, Certificate};
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use uuid::Uuid;

/// For clocks of containers that run behind, and for the time until they are asked, one that wakes up included.
const BACKDATED: Duration = Duration::from_secs(60);
const VALID_FOR: Duration = Duration::from_secs(120);
/// What a session may do in its container. Whoever runs the container restricts it there.
const PERMITS: [&str; 4] = ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"];

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// The certificate's one principal.
    pub container: ContainerId,
    pub owner: UserId,
    /// compute's number of the key that the user logged in with.
    pub key_id: i64,
    pub session: Uuid,
}

/// What a session logs in to its container with.
#[derive(Clone, Debug)]
pub struct Pass {
    pub key: PrivateKey,
    pub certificate: Certificate,
}

/// Signs who logs in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authority {
    key: Arc<PrivateKey>,
    clock: Arc<dyn Clock>,
}

impl Authority {
    pub fn new(key: PrivateKey, clock: Arc<dyn Clock>) -> Self {
        Self { key: Arc::new(key), clock }
    }

    /// What containers are told of.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// A key that was never used, and a certificate that lets it in at the holder's container for two minutes. Its key
    /// id and serial number are what the container's sshd logs.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn certificate(&self, holder: &Holder) -> ssh_key::Result<Pass> {
        let mut rng = rand::rng();
        let key = PrivateKey::random(&mut rng, Algorithm::Ed25519)?;
        let (from, until) = validity(self.clock.now());
        let mut builder = Builder::new_with_random_nonce(&mut rng, key.public_key(), from, until)?;
        builder.cert_type(CertType::User)?.serial(serial(holder.session))?.key_id(key_id(holder))?;
        builder.valid_principal(holder.container.as_str())?;
        for permit in PERMITS {
            builder.extension(permit, "")?;
        }
        Ok(Pass { certificate: builder.sign(self.key.as_ref())?, key })
    }
}

/// In Unix seconds.
fn validity(now: Micros) -> (u64, u64) {
    let now = Duration::from_micros(now.max(0).unsigned_abs());
    (now.saturating_sub(BACKDATED).as_secs(), (now + VALID_FOR).as_secs())
}

/// The half of the session's id that has the time, so that they grow.
fn serial(session: Uuid) -> u64 {
    session.as_u64_pair().0
}

fn key_id(holder: &Holder) -> String {
    format!("u{}/k{}/s{}", holder.owner, holder.key_id, holder.session)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use edd_events::clock::ManualClock;

    use super::*;

    /// 2024-01-22T11:46:40Z.
    const NOW: Micros = 1_705_924_000_000_000;

    fn authority() -> Authority {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        Authority::new(key, Arc::new(ManualClock::at(NOW)))
    }

    fn holder() -> Holder {
        Holder {
            container: "abcdefghij".parse().unwrap(),
            owner: "V1StGXR8_Z5jdHi6B-myT".parse().unwrap(),
            key_id: 7,
            session: "018d2f4e-3800-7001-8000-000000000002".parse().unwrap(),
        }
    }

    #[test]
    fn openssh_reads_the_certificate_as_it_is_meant() {
        let (dir, authority) = (tempfile::tempdir().unwrap(), authority());
        let pass = authority.certificate(&holder()).unwrap();
        let path = dir.path().join("session-cert.pub");
        std::fs::write(&path, pass.certificate.to_openssh().unwrap()).unwrap();
        let shown = Command::new("ssh-keygen").arg("-Lf").arg(&path).env("TZ", "UTC").output().unwrap();
        assert!(shown.status.success(), "{shown:?}");
        let fingerprint = |key: &PublicKey| key.fingerprint(Default::default()).to_string();
        let (own, ca) = (fingerprint(pass.key.public_key()), fingerprint(authority.public_key()));
        let expected = [
            "Type: ssh-ed25519-cert-v01@openssh.com user certificate".to_owned(),
            format!("Public key: ED25519-CERT {own}"),
            format!("Signing CA: ED25519 {ca} (using ssh-ed25519)"),
            "Key ID: \"uV1StGXR8_Z5jdHi6B-myT/k7/s018d2f4e-3800-7001-8000-000000000002\"".to_owned(),
            format!("Serial: {}", 0x018d_2f4e_3800_7001_u64),
            "Valid: from 2024-01-22T11:45:40 to 2024-01-22T11:48:40".to_owned(),
            "Principals:".to_owned(),
            "abcdefghij".to_owned(),
            "Critical Options: (none)".to_owned(),
            "Extensions:".to_owned(),
            "permit-X11-forwarding".to_owned(),
            "permit-agent-forwarding".to_owned(),
            "permit-port-forwarding".to_owned(),
            "permit-pty".to_owned(),
        ];
        let shown = String::from_utf8(shown.stdout).unwrap();
        let lines: Vec<&str> = shown.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_session_has_a_key_of_its_own() {
        let authority = authority();
        let (one, other) = (authority.certificate(&holder()).unwrap(), authority.certificate(&holder()).unwrap());
        assert_ne!(one.key.public_key(), other.key.public_key());
        assert_ne!(one.certificate.nonce(), other.certificate.nonce());
        assert_eq!(one.certificate.public_key(), one.key.public_key().key_data());
        one.certificate.verify_signature().unwrap();
    }

    #[test]
    fn a_clock_before_1970_gives_no_certificate_for_all_times() {
        assert_eq!(validity(-5), (0, 120));
        assert_eq!(validity(0), (0, 120));
    }
}
