//! The id of an event, by which a reader knows that it has seen it.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use rand::Rng;
use uuid::Uuid;

/// A UUID. Ours are of version 7: sorted by the millisecond in which they were made, random beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Uuid);

/// Text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event id {text:?} is no UUID: {reason}")]
pub struct InvalidEventId {
    text: String,
    reason: uuid::Error,
}

impl EventId {
    /// A new id. A clock before 1970 counts as 1970.
    pub fn new(now: SystemTime, rng: &mut impl Rng) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut random = [0; 10];
        rng.fill_bytes(&mut random);
        // 48 bits of it are kept, which last until the year 10889.
        let millis = since.as_millis() as u64;
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let parsed = Uuid::try_parse(text);
        parsed.map(Self).map_err(|reason| InvalidEventId { text: text.chars().take(40).collect(), reason })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn ids_sort_by_the_time_they_were_made_and_differ_within_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let (early, late) =
            (EventId::new(at(1_705_920_000_000), &mut rng), EventId::new(at(1_705_920_000_001), &mut rng));
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_ne!(late, EventId::new(at(1_705_920_000_001), &mut rng));
        assert_eq!(early.0.get_version_num(), 7);
        assert!(early.to_string().starts_with("018d30c1-7000-7"), "{early}");
        assert_eq!(early.to_string().parse(), Ok(early));
        let before_1970 = EventId::new(SystemTime::UNIX_EPOCH - Duration::from_secs(1), &mut rng);
        assert!(before_1970.to_string().starts_with("00000000-0000-7"), "{before_1970}");
    }

    #[test]
    fn text_that_is_no_uuid_is_refused() {
        for text in ["", "uuid-v4", "018d2f4e-3800-7000-8000-00000000000g"] {
            let error = text.parse::<EventId>().unwrap_err().to_string();
            assert!(error.contains("no UUID"), "{error}");
        }
    }
}
