use http::header::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::decision::HeaderOp;

fn read(head: &str) -> Result<Response, Malformed> {
    parse(head.as_bytes(), &Method::GET)
}

fn body(lines: &str) -> Result<Body, Malformed> {
    read(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).map(|response| response.body)
}

#[test]
fn an_answer_ends_in_one_place() {
    assert_eq!(body("content-length: 3\r\n"), Ok(Body::Bytes(3)));
    assert_eq!(body("Content-Length: 3\r\nContent-Length: 3, 3\r\n"), Ok(Body::Bytes(3)));
    assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
    assert_eq!(body(""), Ok(Body::UntilClose));
    for (status, method) in [("204 No Content", Method::GET), ("304 x", Method::GET), ("200 OK", Method::HEAD)] {
        let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(parse(head.as_bytes(), &method).map(|response| response.body), Ok(Body::Bytes(0)), "{head}");
    }
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3,\r\n",
        "Content-Length: +3\r\n",
        "Content-Length:\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding:\r\n",
        "X: a\r\n b\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\r\n",
        ": a\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
    ] {
        assert!(body(lines).is_err(), "{lines:?}");
    }
}

#[test]
fn a_status_line_is_a_status_line() {
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 999 \u{fc}\tx", "HTTP/1.0 200 OK"] {
        assert!(read(&format!("{line}\r\nContent-Length: 0\r\n\r\n")).is_ok(), "{line}");
    }
    for line in ["", "HTTP/1.1", "HTTP/1.1 20", "HTTP/1.1 099 x", "HTTP/1.1 2000", "HTTP/2.0 200 OK", "http/1.1 200 OK"]
    {
        assert!(read(&format!("{line}\r\nContent-Length: 0\r\n\r\n")).is_err(), "{line}");
    }
    assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err(), "HTTP/1.0 has no chunks");
}

#[test]
fn connections_are_kept_as_the_target_says() {
    let keeps = |line: &str, lines: &str| {
        read(&format!("{line}\r\nContent-Length: 0\r\n{lines}\r\n")).map(|response| response.keeps_alive)
    };
    assert_eq!(keeps("HTTP/1.1 200 OK", ""), Ok(true));
    assert_eq!(keeps("HTTP/1.1 200 OK", "Connection: x, Close\r\n"), Ok(false));
    assert_eq!(keeps("HTTP/1.0 200 OK", ""), Ok(false));
    assert_eq!(keeps("HTTP/1.0 200 OK", "Connection: Keep-Alive\r\n"), Ok(true));
    assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n").map(|response| response.keeps_alive), Ok(false));
}

#[test]
fn the_client_gets_what_is_meant_for_it() {
    let head = "HTTP/1.0 200 Fine\r\nX-CASE: 1\r\nConnection: keep-alive, X-Hop, Content-Length\r\nKeep-Alive: 5\r\n\
        x-hop: 2\r\nUpgrade: h2c\r\nServer: s\r\nDate: now\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\n";
    let ops = [HeaderOp::Remove(header::SERVER), HeaderOp::Set(HeaderName::from_static("x-new"), "n".parse().unwrap())];
    let out = read(head).unwrap().for_client(head.as_bytes(), &Changes::of(&ops), true);
    let want =
        "HTTP/1.1 200 Fine\r\nX-CASE: 1\r\nDate: now\r\nx-new: n\r\nContent-Length: 3\r\nConnection: close\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), want);
    let open = "HTTP/1.1 200 OK\r\n\r\n";
    let out = String::from_utf8(read(open).unwrap().for_client(open.as_bytes(), &Changes::default(), false)).unwrap();
    assert!(out.contains("\r\nTransfer-Encoding: chunked\r\n") && out.contains("\r\nDate: "), "{out}");
}

/// Heads that are nearly right.
fn heads() -> impl Strategy<Value = String> {
    let line =
        prop::sample::select(vec!["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 204", "HTTP/1.1 2x0 a"]);
    let name = prop::sample::select(vec!["Content-Length", "transfer-encoding", "Connection", "X-A", "X A", "", "é"]);
    let value = prop_oneof![
        "[ -~\t]{0,12}",
        prop::sample::select(vec!["3", "3, 3", "chunked", "close", "a\rb", "a\nb", "\0", "é"]).prop_map(str::to_owned),
    ];
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n "]);
    let fields = prop::collection::vec((name, value, end), 0..6);
    (line, fields).prop_map(|(line, fields)| {
        let fields: String = fields.into_iter().map(|(name, value, end)| format!("{name}:{value}{end}")).collect();
        format!("{line}\r\n{fields}\r\n")
    })
}

proptest! {
    /// Whatever is let through, another parser reads in the same way.
    #[test]
    fn what_is_taken_is_read_alike_elsewhere(text in heads()) {
        let mut scanner = HeadScanner::default();
        if let Ok(Some(length)) = head_length(&mut scanner, text.as_bytes())
            && let Ok(response) = parse(&text.as_bytes()[..length], &Method::GET)
        {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut theirs = httparse::Response::new(&mut headers);
            prop_assert_eq!(theirs.parse(text.as_bytes()), Ok(httparse::Status::Complete(length)), "{:?}", text);
            prop_assert_eq!(theirs.code, Some(response.status.as_u16()));
            let (_, ours) = fields::split(&text.as_bytes()[..length]);
            let ours: Vec<_> = ours.map(|field| (field.name, field.value)).collect();
            let theirs: Vec<_> =
                theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value.trim_ascii())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
