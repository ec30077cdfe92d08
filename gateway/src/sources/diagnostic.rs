//! What is wrong with a file, and where: message, position, the line itself and a hint.

use std::fmt;

use serde::Serialize;

use super::node::Span;

/// Errors kept per file; more tell nobody anything new.
pub const MAX_ERRORS: usize = 100;
/// Longest piece of a source line that is kept, in characters.
const MAX_SOURCE_CHARS: usize = 160;
/// Longest message or hint, in characters: both quote the file.
const MAX_TEXT_CHARS: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, but surely not what its author meant.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding. `Display` renders it in the manner of rustc, without colour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    pub hint: Option<String>,
    /// The file as it was named to [`super::parse`].
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How much of the line is meant, in characters, at least 1.
    pub length: usize,
    /// The line, without control characters; a window around the column when the line is long.
    pub source: String,
    /// Where the column lies within `source`, in characters from 0.
    #[serde(skip)]
    caret: usize,
}

impl Diagnostic {
    /// An error at the bytes `span` of another `text`, such as a file of settings.
    pub fn error(file: &str, text: &str, span: &Span, message: &str, hint: &str) -> Self {
        SourceText::new(file, text).diagnostic(Severity::Error, span, message, Some(hint))
    }

    /// The text for a terminal, colours only when asked for, without a final line break.
    pub fn render(&self, color: bool) -> String {
        let paint = |code: &'static str| if color { code } else { "" };
        let (reset, bold, blue) = (paint("\x1b[0m"), paint("\x1b[1m"), paint("\x1b[1;34m"));
        let mark = match self.severity {
            Severity::Error => paint("\x1b[1;31m"),
            Severity::Warning => paint("\x1b[1;33m"),
        };
        let Self { message, file, line, column, source, .. } = self;
        let severity = self.severity.as_str();
        let pad = " ".repeat(line.to_string().len());
        let indent = " ".repeat(self.caret);
        let carets = "^".repeat(self.length.min(source.chars().count().saturating_sub(self.caret)).max(1));
        let mut out = format!(
            "{mark}{severity}{reset}{bold}: {message}{reset}\n \
             {pad}{blue}-->{reset} {file}:{line}:{column}\n \
             {pad} {blue}|{reset}\n \
             {blue}{line} |{reset} {source}\n \
             {pad} {blue}|{reset} {indent}{mark}{carets}{reset}"
        );
        if let Some(hint) = &self.hint {
            out.push_str(&format!("\n {pad} {blue}={reset} {bold}hint{reset}: {hint}"));
        }
        // An empty source line must not leave spaces at the end.
        out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// A text and where its lines begin: turns byte ranges into diagnostics.
pub(super) struct SourceText<'t> {
    origin: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> SourceText<'t> {
    pub fn new(origin: &'t str, text: &'t str) -> Self {
        let bytes = text.as_bytes();
        // YAML ends a line with LF, CR LF or a CR alone.
        let breaks = bytes.iter().enumerate().filter(|&(at, &byte)| match byte {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        });
        let line_starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect();
        Self { origin, text, line_starts }
    }

    pub fn text(&self) -> &'t str {
        self.text
    }

    pub fn origin(&self) -> &'t str {
        self.origin
    }

    /// The line that holds the byte at `offset`, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset)
    }

    pub fn diagnostic(&self, severity: Severity, span: &Span, message: &str, hint: Option<&str>) -> Diagnostic {
        let offset = self.text.floor_char_boundary(span.start);
        let line = self.line_of(offset);
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let source = self.text[start..end].trim_end_matches(['\n', '\r']);
        let before = self.text[start..offset].chars().count();
        let meant = self.text[offset..self.text.floor_char_boundary(span.end).clamp(offset, end)]
            .trim_end_matches(['\n', '\r', ' '])
            .chars()
            .count();
        // A long line is cut so that the column stays in view.
        let skipped =
            if source.chars().count() > MAX_SOURCE_CHARS { before.saturating_sub(MAX_SOURCE_CHARS / 4) } else { 0 };
        Diagnostic {
            severity,
            message: printable(message, MAX_TEXT_CHARS),
            hint: hint.map(|hint| printable(hint, MAX_TEXT_CHARS)),
            file: self.origin.to_owned(),
            line,
            column: before + 1,
            length: meant.max(1),
            source: source.chars().skip(skipped).take(MAX_SOURCE_CHARS).map(printable_char).collect(),
            caret: before - skipped,
        }
    }
}

/// `text` without control characters, so that a file cannot drive the reader's terminal.
fn printable(text: &str, max_chars: usize) -> String {
    let mut out: String = text.chars().take(max_chars).map(printable_char).collect();
    if text.chars().nth(max_chars).is_some() {
        out.push('…');
    }
    out
}

fn printable_char(c: char) -> char {
    match c {
        '\t' => ' ',
        // Controls, and the marks that reorder the text around them.
        c if c.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Span, want: &str) {
        let found = SourceText::new("routes.yaml", text).diagnostic(Severity::Error, &span, "no", Some("try"));
        assert_eq!(found.to_string(), want);
    }

    #[test]
    fn points_at_the_line() {
        check("a: 1\nbc: 2\n", 5..7, "error: no\n  --> routes.yaml:2:1\n   |\n 2 | bc: 2\n   | ^^\n   = hint: try");
        check(
            "a: 1\r\nbc: 2\r\n",
            10..11,
            "error: no\n  --> routes.yaml:2:5\n   |\n 2 | bc: 2\n   |     ^\n   = hint: try",
        );
        check("a: 1\rbc: 2", 5..7, "error: no\n  --> routes.yaml:2:1\n   |\n 2 | bc: 2\n   | ^^\n   = hint: try");
    }

    #[test]
    fn stays_on_one_line_and_in_the_text() {
        check("a:\n  b\n", 0..7, "error: no\n  --> routes.yaml:1:1\n   |\n 1 | a:\n   | ^^\n   = hint: try");
        check("", 0..0, "error: no\n  --> routes.yaml:1:1\n   |\n 1 |\n   | ^\n   = hint: try");
        check("ä", 1..99, "error: no\n  --> routes.yaml:1:1\n   |\n 1 | ä\n   | ^\n   = hint: try");
    }

    #[test]
    fn keeps_the_gutter_straight() {
        let text = "\n".repeat(9) + "x\n";
        check(&text, 9..10, "error: no\n   --> routes.yaml:10:1\n    |\n 10 | x\n    | ^\n    = hint: try");
    }

    #[test]
    fn shows_a_window_of_a_long_line() {
        let text = "x".repeat(5000) + "!" + &"y".repeat(5000);
        let found = SourceText::new("f", &text).diagnostic(Severity::Warning, &(5000..5001), "no", None);
        assert_eq!((found.column, found.source.chars().count()), (5001, MAX_SOURCE_CHARS));
        assert_eq!(found.source.chars().nth(found.caret), Some('!'));
        assert!(found.to_string().starts_with("warning: no\n"));
    }

    #[test]
    fn disarms_control_characters() {
        let found = SourceText::new("f", "a\x1b[31m\tb").diagnostic(Severity::Error, &(0..1), "\x1b[2J", None);
        assert_eq!((found.source.as_str(), found.message.as_str()), ("a\u{fffd}[31m b", "\u{fffd}[2J"));
    }

    #[test]
    fn serializes_for_scripts() {
        let found = SourceText::new("f", "a: b").diagnostic(Severity::Warning, &(3..4), "no", Some("try"));
        let want = serde_json::json!({
            "severity": "warning", "message": "no", "hint": "try",
            "file": "f", "line": 1, "column": 4, "length": 1, "source": "a: b",
        });
        assert_eq!(serde_json::to_value(found).expect("a diagnostic is plain data"), want);
    }

    #[test]
    fn colours_only_when_asked() {
        let found = SourceText::new("f", "a").diagnostic(Severity::Error, &(0..1), "no", Some("try"));
        assert!(found.render(true).contains("\x1b[1;31m"));
        assert!(!found.render(false).contains('\x1b'));
    }
}
