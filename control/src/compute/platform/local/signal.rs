//! Signals by the names that SSH has for them (RFC 4254 §6.10).

use rustix::process::Signal;

/// Those of the RFC, and those that a program may end by besides.
const NAMES: [(&str, Signal); 18] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("BUS", Signal::BUS),
    ("SYS", Signal::SYS),
    ("TRAP", Signal::TRAP),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// The signal of this name, with or without `SIG` before it.
pub(super) fn named(name: &str) -> Option<Signal> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// The name of a signal's number; one without a name is told by its number.
pub(super) fn name(number: i32) -> String {
    let known = NAMES.iter().find(|(_, signal)| signal.as_raw() == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_signals_are_one_to_one() {
        for (text, signal) in NAMES {
            assert_eq!(named(text), Some(signal));
            assert_eq!(named(&format!("SIG{text}")), Some(signal));
            assert_eq!(name(signal.as_raw()), text);
        }
        assert_eq!(named("term"), None);
        assert_eq!(name(63), "63");
    }
}
