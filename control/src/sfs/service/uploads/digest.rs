//! The SHA-256 of what has come, as it is kept between two requests.

use sha2_resumable::Sha256;
use sha2_resumable::digest::common::hazmat::{SerializableState, SerializedState};

use crate::sfs::error::SfsError;

/// A digest that goes on where it was left.
///
/// # Errors
/// The state is none: the database holds what this service never wrote there.
pub(super) fn resumed(state: &[u8]) -> Result<Sha256, SfsError> {
    let broken = |what: &str| sqlx::Error::ColumnDecode { index: "digest_state".to_owned(), source: what.into() };
    let state = SerializedState::<Sha256>::try_from(state).map_err(|_| broken("it has another length"))?;
    Ok(Sha256::deserialize(&state).map_err(|_| broken("it is no state of a SHA-256"))?)
}

#[cfg(test)]
mod tests {
    use sha2_resumable::Digest;

    use super::*;

    #[test]
    fn a_digest_goes_on_where_it_was_left() {
        for at in [0, 1, 63, 64, 65, 1000] {
            let text = [b'x'; 1000];
            let mut begun = Sha256::new();
            begun.update(&text[..at]);
            let mut resumed = resumed(&begun.serialize()).expect("a digest");
            resumed.update(&text[at..]);
            assert_eq!(resumed.finalize(), Sha256::digest(text), "{at}");
        }
        for broken in [&[][..], &[0; 10]] {
            assert!(resumed(broken).is_err());
        }
    }
}
