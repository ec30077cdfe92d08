//! Subjects: the addresses of messages on the bus, dots between tokens.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest subject, bytes. The longest of our own, a dead letter's, has about 80.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// Of what a peer sent, an error repeats this many characters.
const MAX_ECHO_CHARS: usize = 80;

const DEAD_LETTER: &str = "dlq";

/// Why a subject could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A token is empty or has another character, such as a dot or a wildcard.
    #[error("{0:?} cannot be part of a subject: 1 or more of A-Z a-z 0-9 _ - are allowed")]
    Token(String),
    /// An event without the id that its subject consists of.
    #[error("the event lacks the id that its subject `{0}` needs")]
    MissingId(SubjectPattern),
    /// More than [`MAX_SUBJECT_BYTES`].
    #[error("a subject of {0} bytes: at most {MAX_SUBJECT_BYTES} are allowed")]
    TooLong(usize),
    /// No event has such a subject.
    #[error("no event has the subject {0:?}")]
    Unknown(String),
}

impl SubjectError {
    pub(crate) fn unknown(subject: &str) -> Self {
        Self::Unknown(echo(subject))
    }
}

/// A subject that one message can be published on: valid tokens, no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Box<str>);

impl Subject {
    /// # Errors
    /// [`SubjectError::Token`] and [`SubjectError::TooLong`].
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, SubjectError> {
        let text = text.into();
        if text.len() > MAX_SUBJECT_BYTES {
            return Err(SubjectError::TooLong(text.len()));
        }
        text.split('.').try_for_each(check_token)?;
        Ok(Self(text))
    }

    /// The subject as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether `filter` covers this subject. In a filter `*` stands for one token, `>` at its end for one or more.
    pub fn matches(&self, filter: &str) -> bool {
        covers(filter, &self.0)
    }

    /// Where `consumer` puts a message of this subject that it gave up: `dlq.<consumer>.<subject>`. No filter of a
    /// consumer covers it, so that nobody eats their dead letters again.
    ///
    /// # Errors
    /// [`SubjectError::Token`] for the consumer's name and [`SubjectError::TooLong`].
    pub fn dead_letter(&self, consumer: &str) -> Result<Self, SubjectError> {
        check_token(consumer)?;
        Self::new(format!("{DEAD_LETTER}.{consumer}.{self}"))
    }
}

/// [`Subject::matches`] for a subject that came over a bus and is known to be one.
pub fn covers(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            (wanted, Some(token)) if wanted != "*" && wanted != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Subject {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        Self::new(text)
    }
}

/// A dead letter's subject, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSubject {
    /// The durable consumer that gave the message up; a requeue goes to it alone.
    pub consumer: String,
    /// The subject that the message had.
    pub original: Subject,
}

impl FromStr for DeadLetterSubject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let subject = Subject::new(text)?;
        let mut parts = subject.as_str().splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(DEAD_LETTER), Some(consumer), Some(original)) => {
                Ok(Self { consumer: consumer.to_owned(), original: Subject::new(original)? })
            }
            _ => Err(SubjectError::unknown(text)),
        }
    }
}

/// The subjects of one kind of event: fixed tokens, and at most one in braces that holds an id, such as
/// `auth.user.{user_id}.created`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectPattern {
    text: &'static str,
    /// Before and after the braces; without braces all is `before`.
    before: &'static str,
    after: Option<&'static str>,
}

impl SubjectPattern {
    /// Reads a pattern. Meant for constants: a malformed one does not compile.
    pub(crate) const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let (mut open, mut close, mut at) = (None, None, 0);
        while at < bytes.len() {
            match bytes[at] {
                b'{' => {
                    assert!(open.is_none() && at > 0 && bytes[at - 1] == b'.', "braces hold the whole of one token");
                    open = Some(at);
                }
                b'}' => {
                    assert!(open.is_some() && close.is_none(), "a closing brace without an opening one");
                    assert!(at + 1 < bytes.len() && bytes[at + 1] == b'.', "a token follows the braces");
                    close = Some(at);
                }
                b'.' => assert!(at > 0 && at + 1 < bytes.len() && bytes[at + 1] != b'.', "no token is empty"),
                byte => assert!(is_token_byte(byte), "a character that no subject may have"),
            }
            at += 1;
        }
        match (open, close) {
            (Some(open), Some(close)) => {
                Self { text, before: text.split_at(open).0, after: Some(text.split_at(close + 1).1) }
            }
            (None, None) => Self { text, before: text, after: None },
            _ => panic!("an opening brace without a closing one"),
        }
    }

    /// The pattern as written.
    pub const fn as_str(&self) -> &'static str {
        self.text
    }

    /// The filter that covers all of its subjects: `*` for the id.
    pub fn filter(&self) -> String {
        match self.after {
            None => self.text.to_owned(),
            Some(after) => format!("{}*{after}", self.before),
        }
    }

    /// The subject for `id`; a pattern without braces takes none.
    ///
    /// # Errors
    /// [`SubjectError::Token`] if `id` cannot be one, [`SubjectError::MissingId`] if it is needed and not given.
    pub fn subject(&self, id: Option<&str>) -> Result<Subject, SubjectError> {
        match (self.after, id) {
            (None, _) => Subject::new(self.text),
            (Some(_), None) => Err(SubjectError::MissingId(*self)),
            (Some(after), Some(id)) => {
                check_token(id)?;
                Subject::new([self.before, id, after].concat())
            }
        }
    }

    /// The id in a subject of this pattern: `None` if it is of another one, `Some(None)` if this one has no id.
    pub fn id<'s>(&self, subject: &'s str) -> Option<Option<&'s str>> {
        let Some(after) = self.after else { return (subject == self.text).then_some(None) };
        let id = subject.strip_prefix(self.before)?.strip_suffix(after)?;
        check_token(id).is_ok().then_some(Some(id))
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// A field that can be the id in a subject. A field that was not set cannot.
pub(crate) trait SubjectId {
    fn subject_id(&self) -> Option<Cow<'_, str>>;
}

impl SubjectId for String {
    fn subject_id(&self) -> Option<Cow<'_, str>> {
        (!self.is_empty()).then_some(Cow::Borrowed(self))
    }
}

impl SubjectId for i64 {
    fn subject_id(&self) -> Option<Cow<'_, str>> {
        (*self > 0).then(|| Cow::Owned(self.to_string()))
    }
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn check_token(token: &str) -> Result<(), SubjectError> {
    let valid = !token.is_empty() && token.bytes().all(is_token_byte);
    if valid { Ok(()) } else { Err(SubjectError::Token(echo(token))) }
}

fn echo(text: &str) -> String {
    text.chars().take(MAX_ECHO_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: SubjectPattern = SubjectPattern::new("auth.user.{user_id}.created");
    const REFRESHED: SubjectPattern = SubjectPattern::new("gateway.router.refreshed");

    fn subject(text: &str) -> Subject {
        Subject::new(text).unwrap()
    }

    #[test]
    fn a_pattern_makes_and_reads_its_subjects() {
        let made = CREATED.subject(Some("V1StGXR8_Z5jdHi6B-myT")).unwrap();
        assert_eq!(made.as_str(), "auth.user.V1StGXR8_Z5jdHi6B-myT.created");
        assert_eq!(CREATED.id(made.as_str()), Some(Some("V1StGXR8_Z5jdHi6B-myT")));
        assert_eq!(CREATED.id("auth.user.x.deleted"), None);
        assert_eq!(CREATED.id("auth.user.x.y.created"), None);
        assert_eq!(CREATED.id("auth.user..created"), None);
        assert_eq!(CREATED.id("auth.user.created"), None);
        assert_eq!(CREATED.filter(), "auth.user.*.created");

        assert_eq!(REFRESHED.subject(None).unwrap().as_str(), "gateway.router.refreshed");
        assert_eq!(REFRESHED.id("gateway.router.refreshed"), Some(None));
        assert_eq!(REFRESHED.id("gateway.router.refreshed.x"), None);
        assert_eq!(REFRESHED.filter(), "gateway.router.refreshed");
    }

    #[test]
    fn an_id_that_would_change_the_subject_is_refused() {
        assert_eq!(CREATED.subject(None), Err(SubjectError::MissingId(CREATED)));
        for id in ["", "a.b", "*", ">", "a b", "é", "a\n", "{user_id}"] {
            assert_eq!(CREATED.subject(Some(id)), Err(SubjectError::Token(id.to_owned())), "{id:?}");
        }
        assert_eq!(CREATED.subject(Some(&"a".repeat(300))), Err(SubjectError::TooLong(318)));
    }

    #[test]
    fn an_error_repeats_no_more_than_a_line_of_what_was_sent() {
        let error = Subject::new(" ".repeat(200)).unwrap_err();
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn filters_cover_whole_tokens() {
        let cases = [
            ("auth.user.>", "auth.user.x.created", true),
            ("auth.user.>", "auth.user", false),
            ("auth.user.>", "auth.users.x", false),
            ("auth.*.x.created", "auth.user.x.created", true),
            ("auth.*", "auth.user.x", false),
            ("auth.user.x", "auth.user.x", true),
            ("auth.user.x", "auth.user", false),
            (">", "auth", true),
        ];
        for (filter, text, covered) in cases {
            assert_eq!(subject(text).matches(filter), covered, "{filter} over {text}");
        }
    }

    #[test]
    fn a_dead_letter_names_its_consumer_and_its_subject() {
        let original = subject("auth.user.x.created");
        let dead = original.dead_letter("sfs-service").unwrap();
        assert_eq!(dead.as_str(), "dlq.sfs-service.auth.user.x.created");
        let parsed: DeadLetterSubject = dead.as_str().parse().unwrap();
        assert_eq!(parsed, DeadLetterSubject { consumer: "sfs-service".to_owned(), original });
        assert!(subject("auth.user").dead_letter("a.b").is_err());
        for text in ["dlq", "dlq.sfs-service", "auth.user.x.created", "dlq.sfs-service.auth.>"] {
            assert!(text.parse::<DeadLetterSubject>().is_err(), "{text}");
        }
    }
}
