//! Moments, between protobuf, JSON and the clock.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::common::Timestamp;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// A [`Timestamp`] that is no moment: nanoseconds of a second or more, or beyond what the clock can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no moment: {} s and {} ns since 1970", .0.seconds, .0.nanos)]
pub struct OutOfRange(pub Timestamp);

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).expect("the system's clock counts in i64 seconds");
        let nanos = |d: Duration| i32::try_from(d.subsec_nanos()).expect("less than a second");
        match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self { seconds: seconds(since), nanos: nanos(since) },
            Err(before) => {
                let before = before.duration();
                match nanos(before) {
                    0 => Self { seconds: -seconds(before), nanos: 0 },
                    rest => Self { seconds: -seconds(before) - 1, nanos: NANOS_PER_SECOND - rest },
                }
            }
        }
    }
}

impl TryFrom<Timestamp> for SystemTime {
    type Error = OutOfRange;

    fn try_from(timestamp: Timestamp) -> Result<Self, OutOfRange> {
        let whole = Duration::from_secs(timestamp.seconds.unsigned_abs());
        let second = if timestamp.seconds < 0 {
            Self::UNIX_EPOCH.checked_sub(whole)
        } else {
            Self::UNIX_EPOCH.checked_add(whole)
        };
        let nanos = u32::try_from(timestamp.nanos).ok().filter(|_| timestamp.nanos < NANOS_PER_SECOND);
        let at = second.zip(nanos).and_then(|(second, nanos)| second.checked_add(Duration::new(0, nanos)));
        at.ok_or(OutOfRange(timestamp))
    }
}

/// Integer seconds.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.seconds)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer).map(|seconds| Self { seconds, nanos: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_survive_on_both_sides_of_the_epoch() {
        let epoch = SystemTime::UNIX_EPOCH;
        let cases = [
            (epoch, 0, 0),
            (epoch + Duration::new(1_705_920_000, 5), 1_705_920_000, 5),
            (epoch - Duration::from_secs(3), -3, 0),
            (epoch - Duration::from_nanos(1), -1, 999_999_999),
            (epoch - Duration::new(3, 200_000_000), -4, 800_000_000),
        ];
        for (at, seconds, nanos) in cases {
            let timestamp = Timestamp { seconds, nanos };
            assert_eq!(Timestamp::from(at), timestamp);
            assert_eq!(SystemTime::try_from(timestamp), Ok(at));
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for (seconds, nanos) in
            [(0, -1), (0, 1_000_000_000), (0, i32::MIN), (i64::MAX, 999_999_999 + 1), (i64::MIN, -1)]
        {
            let timestamp = Timestamp { seconds, nanos };
            assert_eq!(SystemTime::try_from(timestamp), Err(OutOfRange(timestamp)));
        }
    }
}
