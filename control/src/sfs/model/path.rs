//! Paths of files: rows in a table, never names on a disk.
//!
//! One name is one sequence of bytes: text is normalized (NFC) where it comes in, and what cannot be seen, or reads as
//! what it is not, is refused.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::Invalid;

/// A path within a namespace: relative, parts between `/`, normalized.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

impl FilePath {
    /// Longest path.
    pub const MAX_BYTES: usize = 1024;
    /// Longest part of one.
    pub const MAX_PART_BYTES: usize = 255;
    /// Most parts of one.
    pub const MAX_PARTS: usize = 32;
    /// Longest text that is looked at: normalizing shortens hardly anything by more.
    const MAX_WRITTEN_BYTES: usize = 4 * Self::MAX_BYTES;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it is in; none: the namespace itself.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The folders that it is in, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        self.0.match_indices('/').map(|(at, _)| Self(self.0[..at].to_owned()))
    }

    /// Whether it is `folder`, or below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        self.below(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn below(&self, folder: &Self) -> Option<&str> {
        self.0.strip_prefix(&folder.0)
    }

    /// The same place below `to` as this has below `from`.
    ///
    /// # Errors
    /// The path becomes too long or too deep, or this is not below `from`.
    pub fn moved(&self, from: &Self, to: &Self) -> Result<Self, Invalid> {
        let rest = self.below(from).filter(|_| self.is_within(from));
        let rest = rest.ok_or_else(|| refused(format!("{} is not in {}", shown(&self.0), shown(&from.0))))?;
        format!("{}{rest}", to.0).parse()
    }

    /// What is called `name` in the folder `parent`.
    ///
    /// # Errors
    /// As of [`FilePath::from_str`].
    pub fn join(parent: Option<&Self>, name: &str) -> Result<Self, Invalid> {
        match parent {
            Some(parent) => format!("{}/{name}", parent.0).parse(),
            None => name.parse(),
        }
    }
}

impl FromStr for FilePath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() > Self::MAX_WRITTEN_BYTES {
            return Err(refused(format!("at most {} bytes, not {}", Self::MAX_BYTES, text.len())));
        }
        if text.starts_with('/') {
            return Err(refused(format!("{} begins with /: write it without, it is relative", shown(text))));
        }
        let text: String = if is_nfc(text) { text.to_owned() } else { text.nfc().collect() };
        if text.len() > Self::MAX_BYTES {
            return Err(refused(format!("at most {} bytes, not {}", Self::MAX_BYTES, text.len())));
        }
        let parts = text.split('/').count();
        if parts > Self::MAX_PARTS {
            return Err(refused(format!("at most {} parts, not {parts}", Self::MAX_PARTS)));
        }
        match text.split('/').find_map(|part| flaw(part).map(|flaw| (part, flaw))) {
            Some((part, flaw)) => Err(refused(format!("the part {} {flaw}", shown(part)))),
            None => Ok(Self(text)),
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn refused(rule: String) -> Invalid {
    Invalid::new("path", rule)
}

/// Text of somebody's choice in a message: what cannot be seen is escaped, and not all of a long one is there.
fn shown(text: &str) -> String {
    const MOST_CHARS: usize = 60;
    let escape = |c: char| if is_invisible(c) || is_joiner(c) { c.escape_unicode().to_string() } else { c.to_string() };
    let begin: String = text.chars().take(MOST_CHARS).map(escape).collect();
    let rest = if text.chars().nth(MOST_CHARS).is_some() { "…" } else { "" };
    format!("\"{begin}{rest}\"")
}

/// What keeps a part, which is normalized, from being one.
fn flaw(part: &str) -> Option<&'static str> {
    Some(match part {
        "" => "is empty",
        "." | ".." => "names no file",
        _ if part.len() > FilePath::MAX_PART_BYTES => "is longer than 255 bytes",
        _ if part.contains('\\') => "has a backslash: / divides parts",
        _ if part.contains(is_invisible) => "has a control character, or one that cannot be seen",
        _ if has_stray_joiner(part) => "has a joiner that joins nothing",
        _ if part.starts_with(char::is_whitespace) || part.ends_with(char::is_whitespace) => {
            "begins or ends with white space"
        }
        _ if !part.is_ascii() && is_disguise(part) => "reads as /, \\ or dots: use plain letters",
        _ => return None,
    })
}

/// Control characters, separators of lines and paragraphs, what turns the direction of writing, what has no width or
/// stands for nothing. Joiners are looked at apart.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}')
        || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{e0000}'..='\u{e0fff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Joiners mean something between characters of the scripts from Hebrew on, and between emoji. In others they are there
/// to make two names look like one.
fn has_stray_joiner(part: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c >= '\u{590}' && !is_joiner(c));
    part.char_indices().filter(|(_, c)| is_joiner(*c)).any(|(at, c)| {
        let (before, after) = (part[..at].chars().next_back(), part[at + c.len_utf8()..].chars().next());
        !joins(before) || !joins(after)
    })
}

/// Whether software that folds look-alikes (NFKC) would read something else than one plain part.
fn is_disguise(part: &str) -> bool {
    let folded: String = part.nfkc().collect();
    folded.contains(['/', '\\']) || matches!(folded.trim(), "" | "." | "..")
}

#[cfg(test)]
mod tests;
