//! YAML as a tree that knows where each piece stands, bounded in depth and in size.
//!
//! Scalars stay text: what `8080` or `on` means depends on the key it is given to, not on YAML.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span as ParserSpan, StrInput};

use super::decode::Context;

/// Bytes from and to, within the text.
pub(super) type Span = Range<usize>;

/// Nodes in one file, aliases counted as what they stand for: the defence against alias bombs.
const MAX_NODES: usize = 2_000_000;
/// Deepest nesting; the format needs six.
const MAX_DEPTH: usize = 32;

pub(super) struct Node {
    pub span: Span,
    pub value: Value,
}

pub(super) enum Value {
    Scalar {
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
    /// Reported already.
    Broken,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Rc<Node>,
}

impl Node {
    /// Whether nothing is written here: an empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Where to point when the node as a whole is meant: at the first key of a mapping.
    pub fn head(&self) -> Span {
        match &self.value {
            Value::Mapping(entries) => {
                entries.first().map_or_else(|| self.span.clone(), |entry| entry.key_span.clone())
            }
            _ => self.span.clone(),
        }
    }
}

/// Reads the one document that `cx` holds. None when it is no YAML; the errors are in `cx`.
pub(super) fn read(cx: &mut Context<'_>) -> Option<Rc<Node>> {
    let text = cx.source.text();
    // YAML takes no others (YAML 1.2 §5.1), and editors do not show them.
    if let Some((at, c)) = text.char_indices().find(|&(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let message = format!("the control character U+{:04X} stands here", u32::from(c));
        cx.error(&(at..at + c.len_utf8()), &message, "remove it; within double quotes it can be written as an escape");
        return None;
    }
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let events = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { events, text, cx, anchors: HashMap::new(), nodes: 0 };
    reader.document().unwrap_or_default()
}

/// The rest of the text cannot be read; the reason is reported.
struct Stop;

struct Anchor {
    node: Rc<Node>,
    /// Nodes it stands for.
    nodes: usize,
}

struct Reader<'r, 't> {
    events: Parser<'t, StrInput<'t>>,
    text: &'t str,
    cx: &'r mut Context<'t>,
    anchors: HashMap<usize, Anchor>,
    nodes: usize,
}

impl<'t> Reader<'_, 't> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.events.next() {
            Some(Ok((event, span))) => {
                if event.tag().is_some() {
                    let tag = self.span(&span.tag_span().unwrap_or(span));
                    self.cx.error(&tag, "a YAML tag has no meaning here", "remove the word that begins with `!`");
                }
                Ok((event, self.span(&span)))
            }
            Some(Err(error)) => Err(self.syntax_error(&error)),
            // The parser ends with StreamEnd, and nothing asks for more behind it.
            None => Ok((Event::StreamEnd, self.text.len()..self.text.len())),
        }
    }

    fn span(&self, span: &ParserSpan) -> Span {
        span.byte_range().unwrap_or(self.text.len()..self.text.len())
    }

    fn document(&mut self) -> Result<Option<Rc<Node>>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    self.cx.error(&span, "a second YAML document begins here", "keep all routes in one document");
                    return Err(Stop);
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, span)?),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Rc<Node>, Stop> {
        let before = self.nodes;
        self.count(1, &span)?;
        let anchor = event.anchor_id();
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Value::Sequence(self.sequence()?),
            Event::MappingStart(..) => Value::Mapping(self.mapping()?),
            Event::Alias(id) => return self.alias(id, span),
            Event::UnresolvedAlias(name) => {
                let hint = if name.starts_with('.') {
                    format!("YAML reads a bare `*` as an alias; put the value in quotes: \"*{name}\"")
                } else {
                    format!("define it first with `&{name}`, or put the value in quotes if a `*` is meant")
                };
                self.cx.error(&span, &format!("no anchor is named `{name}`"), &hint);
                Value::Broken
            }
            // Only nodes stand where a node is asked for.
            _ => Value::Broken,
        };
        let node = Rc::new(Node { span, value });
        if let Some(id) = anchor {
            self.anchors.insert(id, Anchor { node: Rc::clone(&node), nodes: self.nodes - before });
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("the file holds more than {MAX_NODES} values, aliases written out");
        self.cx.error(span, &message, "use fewer aliases, or split the routes over several gateways");
        Err(Stop)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Rc<Node>, Stop> {
        let Some(Anchor { node, nodes }) = self.anchors.get(&id) else {
            self.cx.error(&span, "an alias stands within its own anchor", "write the value out");
            return Ok(Rc::new(Node { span, value: Value::Broken }));
        };
        let (node, nodes) = (Rc::clone(node), *nodes);
        self.count(nodes, &span)?;
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Vec<Rc<Node>>, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        let mut merged: Option<Rc<Node>> = None;
        loop {
            let (event, key_span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let key = self.node(event, key_span.clone())?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            match &key.value {
                Value::Scalar { text, plain: true } if text == "<<" => {
                    if merged.is_some() {
                        self.cx.error(&key_span, "the key `<<` is given twice", "write one: `<<: [*first, *second]`");
                    }
                    merged.get_or_insert(value);
                }
                Value::Scalar { text, .. } => entries.push(Entry { key: text.clone(), key_span, value }),
                Value::Broken => {}
                _ => self.cx.error(&key_span, "a key must be a word", "write `key: value`"),
            }
        }
        self.refuse_duplicates(&entries);
        if let Some(node) = merged {
            let mut given = entries.iter().map(|entry| entry.key.clone()).collect();
            self.merge(&mut entries, &mut given, &node);
        }
        Ok(entries)
    }

    fn refuse_duplicates(&mut self, entries: &[Entry]) {
        let mut seen = HashMap::with_capacity(entries.len());
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry.key_span.start) {
                let line = self.cx.source.line_of(first);
                let message = format!("the key `{}` is given twice", entry.key);
                self.cx.error(
                    &entry.key_span,
                    &message,
                    &format!("it stands on line {line} already; remove one of them"),
                );
            }
        }
    }

    /// `<<: *defaults`: takes what is not given already (YAML 1.1 merge keys, widely used).
    fn merge(&mut self, entries: &mut Vec<Entry>, given: &mut HashSet<String>, node: &Node) {
        match &node.value {
            Value::Mapping(defaults) => {
                entries.extend(defaults.iter().filter(|entry| given.insert(entry.key.clone())).cloned());
            }
            Value::Sequence(nodes) if nodes.iter().all(|node| matches!(node.value, Value::Mapping(_))) => {
                for node in nodes {
                    self.merge(entries, given, node);
                }
            }
            Value::Broken => {}
            _ => self.cx.error(&node.span, "`<<` takes a mapping", "write `<<: *name`, where `&name` marks a mapping"),
        }
    }

    fn syntax_error(&mut self, error: &ScanError) -> Stop {
        let at = error.marker().byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let mut at = self.text.floor_char_boundary(at);
        if is_about_a_tab(error.kind()) {
            // The parser points at the scalar before the tab, or just behind the tab.
            let here = at.saturating_sub(1);
            let near = self.text.get(here..).and_then(|rest| rest.find('\t'));
            at = near.map_or(at, |ahead| here + ahead);
        }
        let next = self.text[at..].chars().next();
        let hint = match (error.kind(), next) {
            (ErrorKind::DirectiveDisallowed, _) => "remove the line; directives have no meaning here",
            (ErrorKind::RecursionLimitExceeded, _) => "close the brackets; nothing is nested this deep",
            (_, Some('\t')) => "indent with spaces; YAML takes no tabs",
            (_, Some('*')) => "put a value that begins with `*` in quotes: \"*\"",
            (_, Some('@' | '`' | '%' | '&' | '!' | '|' | '>')) => {
                "put a value that begins with this character in quotes"
            }
            (_, None) => "the file ends too early; is it whole?",
            _ => {
                "look at this line and the one before: indentation, a space behind each colon, closed quotes and brackets"
            }
        };
        self.cx.error(&(at..at + next.map_or(0, char::len_utf8)), &format!("this is not YAML: {}", error.info()), hint);
        Stop
    }
}

fn is_about_a_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabAtBlockScalarStart
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
    )
}
