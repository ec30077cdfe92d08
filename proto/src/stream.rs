//! What the bus keeps, for how long, and who reads it where they left off.

use std::time::Duration;

use crate::subject::Subject;

/// A log of the bus. All of them: file storage, limits policy, discard old, deny purge and delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// The stream's name on the server.
    pub name: &'static str,
    /// Filters of the subjects that it stores. No two streams' overlap.
    pub subjects: &'static [&'static str],
    /// How long it keeps a message, days.
    pub retention_days: u32,
}

impl Stream {
    /// Users and sessions. Not `auth.>`: that would store `auth.validate.request`, tokens and all, and answer the
    /// requester with its own acknowledgement.
    pub const AUTH: Self = Self { name: "AUTH", subjects: &["auth.user.>", "auth.session.>"], retention_days: 7 };
    /// Containers, SSH keys, and requests for ingress.
    pub const COMPUTE: Self = Self { name: "COMPUTE", subjects: &["compute.>"], retention_days: 7 };
    /// Routes and ingress rules.
    pub const GATEWAY: Self = Self { name: "GATEWAY", subjects: &["gateway.>"], retention_days: 7 };
    /// Namespaces and files.
    pub const SFS: Self = Self { name: "SFS", subjects: &["sfs.>"], retention_days: 7 };
    /// Messages that a consumer gave up; see [`Subject::dead_letter`].
    pub const DLQ: Self = Self { name: "DLQ", subjects: &["dlq.>"], retention_days: 30 };

    /// How long it keeps a message.
    pub const fn retention(&self) -> Duration {
        Duration::from_secs(self.retention_days as u64 * 24 * 3600)
    }

    /// Whether this stream stores messages of `subject`.
    pub fn stores(&self, subject: &Subject) -> bool {
        self.subjects.iter().any(|filter| subject.matches(filter))
    }

    /// The stream that stores messages of `subject`, if one does.
    pub fn of(subject: &Subject) -> Option<&'static Self> {
        STREAMS.iter().find(|stream| stream.stores(subject))
    }
}

/// Every stream.
pub const STREAMS: [Stream; 5] = [Stream::AUTH, Stream::COMPUTE, Stream::GATEWAY, Stream::SFS, Stream::DLQ];

/// A reader of a stream whose position the server keeps. Pull-based, explicit acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumer {
    /// Its name on the server: that of the service. One service has one consumer of this name on each stream it reads.
    pub name: &'static str,
    /// What it reads.
    pub stream: Stream,
    /// Filters of the subjects that it is sent.
    pub filters: &'static [&'static str],
}

/// Every durable consumer.
pub const CONSUMERS: [Consumer; 5] = [
    Consumer { name: "sfs-service", stream: Stream::AUTH, filters: Stream::AUTH.subjects },
    Consumer { name: "compute-service", stream: Stream::AUTH, filters: Stream::AUTH.subjects },
    Consumer { name: "gateway-service", stream: Stream::AUTH, filters: Stream::AUTH.subjects },
    Consumer {
        name: "gateway-service",
        stream: Stream::COMPUTE,
        filters: &["compute.container.>", "compute.ingress.>", "compute.sshkey.>"],
    },
    Consumer { name: "compute-service", stream: Stream::GATEWAY, filters: &["gateway.ingress.>"] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn a_subject(kind: EventKind) -> Subject {
        kind.pattern().subject(Some("x1")).unwrap()
    }

    /// Operators' permissions and other programs' consumers name these.
    #[test]
    fn names_subjects_and_days_are_those_of_the_contract() {
        let streams =
            STREAMS.map(|stream| format!("{} {} {}", stream.name, stream.retention_days, stream.subjects.join(" ")));
        let expected = [
            "AUTH 7 auth.user.> auth.session.>",
            "COMPUTE 7 compute.>",
            "GATEWAY 7 gateway.>",
            "SFS 7 sfs.>",
            "DLQ 30 dlq.>",
        ];
        assert_eq!(streams, expected);
        let consumers = CONSUMERS.map(|c| format!("{} {} {}", c.stream.name, c.name, c.filters.join(" ")));
        let expected = [
            "AUTH sfs-service auth.user.> auth.session.>",
            "AUTH compute-service auth.user.> auth.session.>",
            "AUTH gateway-service auth.user.> auth.session.>",
            "COMPUTE gateway-service compute.container.> compute.ingress.> compute.sshkey.>",
            "GATEWAY compute-service gateway.ingress.>",
        ];
        assert_eq!(consumers, expected);
    }

    #[test]
    fn every_event_is_stored_once_in_the_stream_it_names() {
        for &kind in EventKind::ALL {
            let subject = a_subject(kind);
            let storing: Vec<&str> = STREAMS.iter().filter(|stream| stream.stores(&subject)).map(|s| s.name).collect();
            assert_eq!(storing, [kind.stream().name], "{kind}");
            assert_eq!(Stream::of(&subject), Some(kind.stream()), "{kind}");
        }
    }

    #[test]
    fn requests_are_stored_nowhere_and_dead_letters_apart() {
        assert_eq!(Stream::of(&Subject::new("auth.validate.request").unwrap()), None);
        for &kind in EventKind::ALL {
            let dead = a_subject(kind).dead_letter("sfs-service").unwrap();
            assert_eq!(Stream::of(&dead), Some(&Stream::DLQ));
            for consumer in CONSUMERS {
                assert!(!consumer.filters.iter().any(|filter| dead.matches(filter)), "{} eats {dead}", consumer.name);
            }
        }
    }

    #[test]
    fn every_filter_of_a_consumer_covers_an_event_of_its_stream() {
        for consumer in CONSUMERS {
            for filter in consumer.filters {
                let covered = |kind: &&EventKind| a_subject(**kind).matches(filter);
                let mut kinds = EventKind::ALL.iter().filter(covered).peekable();
                assert!(kinds.peek().is_some(), "{filter} covers nothing");
                assert!(kinds.all(|kind| *kind.stream() == consumer.stream), "{filter} is of another stream");
            }
        }
    }
}
