//! Places between two steps where a test has the process killed, to show that nothing is lost there.
//!
//! Without the feature `fail-points`, which the tests of the command alone switch on, nothing of it is compiled.

/// Kills the process here, with SIGKILL, if `EDD_FAIL_POINT` says so: `name`, or `name:n` for the n-th time that the
/// process comes by. Each point has a name of its own.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        $crate::fail_point::pass($name);
    };
}
pub(crate) use fail_point;

#[cfg(feature = "fail-points")]
pub(crate) use armed::pass;

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// The one point at which this process dies.
    struct Armed {
        name: String,
        /// Times that it may still be passed.
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| std::env::var("EDD_FAIL_POINT").ok().map(|text| Armed::parse(&text)));

    impl Armed {
        fn parse(text: &str) -> Self {
            let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
            let nth: u64 = nth.parse().unwrap_or_else(|_| panic!("EDD_FAIL_POINT={text}: write name or name:times"));
            Self { name: name.to_owned(), left: AtomicU64::new(nth.saturating_sub(1)) }
        }

        /// Whether this is where it ends.
        fn is_hit(&self, name: &str) -> bool {
            let pass = |left: u64| left.checked_sub(1);
            self.name == name && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pass).is_err()
        }
    }

    /// Comes by the point `name`.
    pub(crate) fn pass(name: &str) {
        if ARMED.as_ref().is_some_and(|armed| armed.is_hit(name)) {
            kill_process(getpid(), Signal::KILL).unwrap_or_else(|error| panic!("fail point {name}: {error}"));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_hit_when_it_was_passed_often_enough() {
            for (text, hits) in [("a", [true, true, true]), ("a:1", [true; 3]), ("a:3", [false, false, true])] {
                let armed = Armed::parse(text);
                assert_eq!([(); 3].map(|()| armed.is_hit("b")), [false; 3], "{text}");
                assert_eq!([(); 3].map(|()| armed.is_hit("a")), hits, "{text}");
            }
        }
    }
}
