//! Chromium without a window. Part of a full run: see [`wanted`].

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::connection::{Connection, Stream};
use super::program::{Program, Running};
use super::record::within;
use super::workdir::Workdir;

/// Whether this run has a browser. A test without one says so and ends.
pub fn wanted() -> bool {
    let wanted = std::env::var_os("EDD_TEST_FULL").is_some();
    if !wanted {
        eprintln!("left out: EDD_TEST_FULL is not set");
    }
    wanted
}

/// A browser that has one page open; spoken to by the DevTools protocol.
pub struct Browser {
    _process: Running,
    _profile: Workdir,
    page: WebSocketStream<Box<dyn Stream>>,
}

impl Browser {
    /// Opens `url`, whoever signed its certificate: that it can be trusted is for curl to show.
    pub async fn open(url: &str) -> Self {
        let profile = Workdir::new();
        let home = profile.path().to_str().expect("a plain path");
        let program = Program::new("chromium").dir(profile.path()).env("HOME", home);
        let program = program.args(&["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"]);
        let process = program.args(&["--remote-debugging-port=0", url]).start();
        let listening =
            |line: &String| line.strip_prefix("DevTools listening on ws://")?.split('/').next()?.parse().ok();
        let devtools = process.stderr.wait("the DevTools", |lines| lines.iter().find_map(listening)).await;
        let pages = async {
            loop {
                let mut client = Connection::open(devtools).await;
                client.send(format!("GET /json/list HTTP/1.1\r\nHost: {devtools}\r\n\r\n")).await;
                let pages = client.response().await.json();
                if let Some(page) = pages[0]["webSocketDebuggerUrl"].as_str() {
                    return page.to_owned();
                }
            }
        };
        let page = within("the page to open", pages).await;
        let stream = Connection::open(devtools).await.into_stream();
        let (page, _) = within("the page", client_async(page, stream)).await.expect("a WebSocket");
        Self { _process: process, _profile: profile, page }
    }

    /// What a person would read.
    pub async fn text(&mut self) -> String {
        self.evaluate("document.body?.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// What a script of the page comes to; promises are awaited.
    pub async fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let ask = json!({"id": 1, "method": "Runtime.evaluate", "params": parameters});
        self.page.send(Message::text(ask.to_string())).await.expect("an open page");
        let answer = self.page.next().await.expect("an open page").expect("an answer");
        let mut answer: Value = serde_json::from_str(answer.to_text().expect("text")).expect("JSON");
        let thrown = &answer["result"]["exceptionDetails"];
        assert!(thrown.is_null(), "{script}: {thrown}");
        answer["result"]["result"]["value"].take()
    }
}
