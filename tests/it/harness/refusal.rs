//! What an answer that edd makes itself promises (`notes/ux.md`): a reason, an id, and a log line with both.

use super::connection::Connection;
use super::edd::Edd;
use super::response::Response;

impl Edd {
    /// Reads the next answer of `client` and checks it in every part: problem+json, as a client gets it
    /// that does not ask for HTML, and the access line.
    pub async fn refusal(&self, client: &mut Connection, status: u16, reason: &str) -> Response {
        let response = match client.try_response("GET").await {
            Ok(response) => response,
            Err(broken) => panic!("wanted {status} {reason}, got {broken:?}"),
        };
        self.check_refusal(&response, status, reason).await;
        response
    }

    /// Checks an answer that was read already, such as one over HTTP/2.
    pub async fn check_refusal(&self, response: &Response, status: u16, reason: &str) {
        assert_eq!(response.status, status, "{} in place of {reason}", response.text());
        let got = (response.status, response.json()["reason"].as_str().unwrap_or_default().to_owned());
        assert_eq!(got, (status, reason.to_owned()), "{}", response.text());
        assert_eq!(response.header("content-type"), "application/problem+json");
        let problem = response.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
        let id = response.header("x-request-id");
        assert!(!id.is_empty(), "an id in {:?}", response.headers);
        assert_eq!(problem["request_id"], id);
        let line = self.access_line(id).await;
        assert_eq!((line.field("status"), line.field("reason")), (status.to_string(), reason.to_owned()), "{line:?}");
    }
}
