//! What edd wrote to stderr, line by line.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;

use super::record::Record;

/// One line of edd's log.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub text: String,
    /// Null when the line is no JSON: a panic, or a message from before logging began.
    pub json: Value,
}

impl LogLine {
    fn parse(text: String) -> Self {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { text, json }
    }

    /// A field as text; numbers are printed, absent fields are empty.
    pub fn field(&self, name: &str) -> String {
        match &self.json[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// Whether this is the access line of the request with `id`.
    pub fn is_access(&self, id: &str) -> bool {
        self.field("request_id") == id && !self.json["status"].is_null()
    }
}

/// Follows `stream` to its end on a thread of its own, so that the process never blocks on a full pipe.
pub fn follow(stream: impl Read + Send + 'static) -> Record<LogLine> {
    let record = Record::default();
    let lines = record.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            lines.push(LogLine::parse(String::from_utf8_lossy(&line).into_owned()));
        }
    });
    record
}
