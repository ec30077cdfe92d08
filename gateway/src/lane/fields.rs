//! The fields of a head as bytes, and what a decision changes about them.
//!
//! Names keep their case and fields their order, as nobody between client and target needs to know them.

use http::{HeaderName, HeaderValue};

use crate::decision::HeaderOp;

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    /// Without the blanks around it.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether it is called `name`, which is in lower case.
    pub fn is(&self, name: &HeaderName) -> bool {
        self.name.eq_ignore_ascii_case(name.as_str().as_bytes())
    }

    /// The members of its value, a list.
    pub fn members(&self) -> impl Iterator<Item = &[u8]> {
        self.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }
}

/// The first line of a head without its end, and the fields behind it. The head is known to be well formed.
pub fn split(head: &[u8]) -> (&[u8], Fields<'_>) {
    let mut lines = Fields { rest: head };
    let first = lines.line().unwrap_or_default();
    (first, lines)
}

/// Goes through the fields of a head.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next line; none at the end of the head.
    pub fn line(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        line.strip_suffix(b"\r").filter(|line| !line.is_empty())
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let line = self.line()?;
        let colon = memchr::memchr(b':', line)?;
        Some(Field { name: &line[..colon], value: line[colon + 1..].trim_ascii() })
    }
}

/// What is left of a list of changes once each has been undone by those behind it.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    gone: Vec<&'a HeaderName>,
    new: Vec<(&'a HeaderName, &'a HeaderValue)>,
}

impl<'a> Changes<'a> {
    pub fn of(ops: &'a [HeaderOp]) -> Self {
        let mut changes = Self { gone: Vec::with_capacity(ops.len()), new: Vec::with_capacity(ops.len()) };
        for op in ops {
            if let HeaderOp::Remove(name) | HeaderOp::Set(name, _) = op {
                changes.new.retain(|(new, _)| *new != name);
                changes.gone.push(name);
            }
            if let HeaderOp::Set(name, value) | HeaderOp::Append(name, value) = op {
                changes.new.push((name, value));
            }
        }
        changes
    }

    /// Whether a field of the original head stays.
    pub fn keep(&self, field: &Field<'_>) -> bool {
        !self.gone.iter().any(|name| field.is(name))
    }

    /// Whether a field of that name comes new.
    pub fn bring(&self, wanted: &HeaderName) -> bool {
        self.new.iter().any(|(name, _)| *name == wanted)
    }

    pub fn write_new(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.new {
            write(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Writes one header line.
pub fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    /// What `ops` make of `head`.
    fn changed(head: &str, ops: &[HeaderOp]) -> String {
        let (_, fields) = split(head.as_bytes());
        let (changes, mut out) = (Changes::of(ops), Vec::new());
        fields.filter(|field| changes.keep(field)).for_each(|field| write(&mut out, field.name, field.value));
        changes.write_new(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn changes_apply_in_order() {
        const A: HeaderValue = HeaderValue::from_static("a");
        const B: HeaderValue = HeaderValue::from_static("b");
        let head = "GET / HTTP/1.1\r\nHost:x\r\nVIA:  one\r\nvia: two\r\nX-Y: \tz \r\n\r\nno: field\r\n";
        assert_eq!(changed(head, &[]), "Host: x\r\nVIA: one\r\nvia: two\r\nX-Y: z\r\n");
        assert_eq!(changed(head, &[HeaderOp::Remove(header::VIA)]), "Host: x\r\nX-Y: z\r\n");
        let set = [HeaderOp::Set(header::VIA, A), HeaderOp::Append(header::VIA, B)];
        assert_eq!(changed(head, &set), "Host: x\r\nX-Y: z\r\nvia: a\r\nvia: b\r\n");
        let undone = [HeaderOp::Append(header::VIA, A), HeaderOp::Set(header::VIA, B), HeaderOp::Remove(header::VIA)];
        assert_eq!(changed(head, &undone), "Host: x\r\nX-Y: z\r\n");
    }
}
