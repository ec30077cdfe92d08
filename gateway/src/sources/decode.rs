//! From nodes to values, going on after an error so that one run reports them all.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::{Diagnostic, MAX_ERRORS, Severity, SourceText};
use super::node::{Entry, Node, Span, Value};

/// The text being read, and what was found wrong with it.
pub(super) struct Context<'t> {
    pub source: SourceText<'t>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'t> Context<'t> {
    pub fn new(source: SourceText<'t>) -> Self {
        Self { source, errors: Vec::new(), warnings: Vec::new() }
    }

    pub fn error(&mut self, span: &Span, message: &str, hint: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(self.source.diagnostic(Severity::Error, span, message, Some(hint)));
        }
    }

    /// The error, unless there is one already that explains it.
    pub fn error_if_none(&mut self, span: &Span, message: &str, hint: &str) {
        if self.errors.is_empty() {
            self.error(span, message, hint);
        }
    }

    pub fn warn(&mut self, span: &Span, message: &str, hint: &str) {
        if self.warnings.len() < MAX_ERRORS {
            self.warnings.push(self.source.diagnostic(Severity::Warning, span, message, Some(hint)));
        }
    }

    /// The warnings, or the errors if there is one; in the order of the file.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let list = if self.errors.is_empty() { &mut self.warnings } else { &mut self.errors };
        list.sort_by_key(|found| (found.line, found.column));
        // What an alias repeats is said once.
        list.dedup();
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }

    /// The text of a scalar.
    pub fn text<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => Some(text),
            _ => self.wrong_type(node, wanted),
        }
    }

    pub fn sequence<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n [std::rc::Rc<Node>]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => self.wrong_type(node, wanted),
        }
    }

    pub fn mapping<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ => self.wrong_type(node, wanted),
        }
    }

    /// Reports that `node` is no `wanted`.
    pub fn wrong_type<T>(&mut self, node: &Node, wanted: &str) -> Option<T> {
        let found = match &node.value {
            Value::Broken => return None,
            _ if node.is_null() => {
                // An empty value has no place of its own: point at the key before it.
                let end = self.source.text()[..node.span.start].trim_end().len();
                let at = end.saturating_sub(1)..end;
                let span = if node.span.is_empty() { at } else { node.span.clone() };
                self.error(&span, "a value is missing", &format!("give {wanted}, or remove the key"));
                return None;
            }
            Value::Scalar { text, plain: true } => format!("`{text}`"),
            Value::Scalar { text, .. } => format!("`\"{text}\"`"),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        };
        self.error(&node.head(), &format!("{found} is not {wanted}"), &format!("give {wanted}"));
        None
    }

    /// Reports a key that is none of `known`, and returns the one that is probably meant.
    pub fn unknown_key(&mut self, entry: &Entry, known: &[&'static str]) -> Option<&'static str> {
        let key = entry.key.to_lowercase();
        let near = known.iter().map(|name| (strsim::osa_distance(&key, name), *name));
        let likely = near.filter(|(distance, name)| *distance <= 1 + name.len() / 4).min().map(|(_, name)| name);
        let hint = match likely {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("the keys here are {}", list(known)),
        };
        self.error(&entry.key_span, &format!("unknown key `{}`", entry.key), &hint);
        likely
    }
}

/// `a`, `b` and `c`, each in backticks.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// What can be read from a node. None means that the reason is reported.
pub(super) trait FromNode: Sized {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self>;
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Given<T> {
    pub span: Span,
    pub value: T,
}

/// The value of a key.
#[derive(Debug)]
pub(super) enum Field<T> {
    Absent,
    /// Given, but wrong; reported already.
    Broken,
    Given {
        key: Span,
        span: Span,
        value: T,
    },
}

impl<T> Field<T> {
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Given { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Where the key stands, if the value is good.
    pub fn key(&self) -> Option<&Span> {
        match self {
            Self::Given { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Where the value stands, if it is good.
    pub fn span(&self) -> Option<&Span> {
        match self {
            Self::Given { span, .. } => Some(span),
            _ => None,
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: FromNode> Field<T> {
    pub fn read(entry: &Entry, cx: &mut Context<'_>) -> Self {
        match T::from_node(&entry.value, cx) {
            None => Self::Broken,
            Some(value) => Self::Given { key: entry.key_span.clone(), span: entry.value.head(), value },
        }
    }
}

/// A list of at most `MAX` items.
#[derive(Debug)]
pub(super) struct List<T, const MAX: usize> {
    /// The good ones.
    pub items: Vec<Given<T>>,
    /// How many there are, good or broken.
    pub written: usize,
}

impl<T: FromNode, const MAX: usize> FromNode for List<T, MAX> {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        let items = cx.sequence(node, "a list")?;
        if let Some(first) = items.get(MAX) {
            cx.error(&first.head(), &format!("the list has {} items", items.len()), &format!("keep it to {MAX}"));
            return None;
        }
        let read = |item: &std::rc::Rc<Node>| Some(Given { span: item.head(), value: T::from_node(item, cx)? });
        Some(Self { items: items.iter().filter_map(read).collect(), written: items.len() })
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, cx: &mut Context<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(true),
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => Some(false),
            _ => cx.wrong_type(node, "`true` or `false`"),
        }
    }
}

// The schema shows what people write, not how it is held.

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema, const MAX: usize> JsonSchema for List<T, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({ "type": "array", "items": items, "maxItems": MAX })
    }
}

/// Declares a mapping as people write it: a struct, how it is read, and its JSON Schema, so that
/// the three cannot disagree. Doc comments become the schema's descriptions.
macro_rules! form {
    ($(#[$meta:meta])* struct $name:ident ($wanted:literal) requires [$($required:literal),*] { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, ::schemars::JsonSchema)]
        $(#[$meta])*
        #[schemars(deny_unknown_fields, extend("required" = [$($required),*]))]
        pub(super) struct $name {
            $($(#[$field_meta])* pub $field: $crate::sources::decode::Field<$type>,)*
        }

        impl $crate::sources::decode::FromNode for $name {
            fn from_node(
                node: &$crate::sources::node::Node,
                cx: &mut $crate::sources::decode::Context<'_>,
            ) -> Option<Self> {
                use $crate::sources::decode::Field;
                const KEYS: &[&str] = &[$(stringify!($field)),*];
                let mut form = Self { $($field: Field::Absent),* };
                for entry in cx.mapping(node, $wanted)? {
                    match entry.key.as_str() {
                        $(stringify!($field) => form.$field = Field::read(entry, cx),)*
                        _ => match cx.unknown_key(entry, KEYS) {
                            // What is misspelt is not missing.
                            $(Some(stringify!($field)) if form.$field.is_absent() => form.$field = Field::Broken,)*
                            _ => {}
                        },
                    }
                }
                Some(form)
            }
        }
    };
}
pub(super) use form;
