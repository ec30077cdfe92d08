//! The process under test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::connection::Connection;
use super::log::{LogLine, follow};
use super::program::{Output, Program};
use super::record::{Record, within};
use super::response::{Broken, Response};
use super::workdir::Workdir;

/// A running edd; killed when dropped.
pub struct Edd {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub ssh: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: Record<LogLine>,
    stdout_ended: oneshot::Receiver<()>,
    builder: Builder,
    /// It was asked to end, so that it may be gone when the test is over.
    may_end: bool,
}

/// How to start one. Nothing of the tester's own environment reaches it but PATH.
#[derive(Clone)]
pub struct Builder {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    workdir: Arc<Workdir>,
}

impl Edd {
    /// `edd gateway` with these routes.
    pub fn gateway(routes: impl AsRef<str>) -> Builder {
        Builder::new("gateway", routes.as_ref())
    }

    /// `edd up` with these routes.
    pub fn up(routes: impl AsRef<str>) -> Builder {
        Builder::new("up", routes.as_ref())
    }

    /// `edd control` for one service, whose API is then what [`Edd::http`] is of a gateway.
    pub fn control(service: &str) -> Builder {
        let builder = Builder::bare().env("EDD_API_LISTEN", "127.0.0.1:0");
        builder.args(&["control", service, "--json"])
    }

    /// A plain connection to the HTTP listener.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.http).await
    }

    /// Sends one request on a connection of its own and reads the answer.
    pub async fn get(&self, host: &str, target: &str) -> Response {
        get(self.http, host, target).await
    }

    /// Sends one request, with a body of JSON unless it is null, and reads the answer.
    pub async fn ask(&self, request: &str, host: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        ask(self.http, request, host, headers, body).await.expect("a whole answer")
    }

    /// GET on the admin listener.
    pub async fn admin(&self, target: &str) -> Response {
        get(self.admin, &self.admin.to_string(), target).await
    }

    /// Replaces routes.yaml, as an editor does.
    pub fn write_routes(&self, routes: &str) {
        self.builder.workdir.write("routes.yaml", routes);
    }

    /// Where `name` is, or would be, in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.builder.workdir.path().join(name)
    }

    /// Replaces a file in its directory, as an editor does.
    pub fn write(&self, name: &str, text: &str) {
        self.builder.workdir.write(name, text);
    }

    /// How to start another process with the same settings, routes and data.
    pub fn again(&self) -> Builder {
        self.builder.clone()
    }

    /// Another verb of edd, in the same directory, that asks this process.
    pub fn verb(&self, arguments: &[&str]) -> Program {
        let program = Program::edd(arguments).dir(self.builder.workdir.path());
        program.env("EDD_ADMIN_LISTEN", &self.admin.to_string())
    }

    /// `curl`, for which every host name is this process.
    pub fn curl(&self, arguments: &[&str]) -> Program {
        let mut program = Program::new("curl").args(&["--silent", "--show-error", "--max-time", "15"]);
        for address in [self.http, self.https] {
            program = program.args(&["--resolve", &format!("*:{}:{}", address.port(), address.ip())]);
        }
        program.args(arguments)
    }

    /// The authority that signs for `localhost` and the base domain, PEM.
    pub fn local_authority(&self) -> String {
        let path = self.local_authority_file();
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
    }

    pub fn local_authority_file(&self) -> PathBuf {
        self.path("data/ca/root.pem")
    }

    /// Every line of its log so far.
    pub fn log(&self) -> Vec<LogLine> {
        self.log.all()
    }

    /// Waits until some line of the log satisfies `found`.
    #[track_caller]
    pub fn wait_log(&self, what: impl Into<String>, found: impl Fn(&LogLine) -> bool) -> impl Future<Output = LogLine> {
        self.log.wait(what, move |lines| lines.iter().find(|line| found(line)).cloned())
    }

    /// Waits until so many lines of the log have this text, however long that takes as long as they keep coming.
    pub async fn wait_log_lines(&self, what: &str, text: &str, lines: usize) {
        for wanted in 1..=lines {
            let has = |log: &[LogLine]| log.iter().filter(|line| line.text.contains(text)).count() >= wanted;
            self.log.wait(what, |log| has(log).then_some(())).await;
        }
    }

    /// The access line of the request that was answered with this `x-request-id`.
    #[track_caller]
    pub fn access_line(&self, request_id: &str) -> impl Future<Output = LogLine> {
        let id = request_id.to_owned();
        self.wait_log(format!("the access line of request `{id}`"), move |line| line.is_access(&id))
    }

    /// Sends a signal; after any but HUP, the process may end.
    pub fn signal(&mut self, signal: Signal) {
        self.may_end |= signal != Signal::HUP;
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|e| panic!("send {signal:?} to edd: {e}"));
    }

    /// It will be asked to end by somebody else, such as its successor.
    pub fn may_exit(&mut self) {
        self.may_end = true;
    }

    /// Waits for the end of a process that was asked to end.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        // Its stdout ends with it; only then is waiting for it no wait.
        within("edd to exit", &mut self.stdout_ended).await.expect("the thread that reads stdout ends well");
        self.child.wait().expect("our own child")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory in use (VmRSS), in KiB.
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {path}: {e}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }
}

/// Sends one request on a connection of its own to one that may be killed meanwhile; a body of JSON unless it is null.
pub async fn ask(
    address: SocketAddr,
    request: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Response, Broken> {
    let mut text = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    if !body.is_empty() {
        text += "Content-Type: application/json\r\n";
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let stream = TcpStream::connect(address).await.map_err(|_| Broken::Closed)?;
    let mut connection = Connection::over(stream);
    connection.try_send(text).await.map_err(|_| Broken::Closed)?;
    connection.try_response("GET").await
}

async fn get(address: SocketAddr, host: &str, target: &str) -> Response {
    let mut connection = Connection::open(address).await;
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    connection.response().await
}

impl Builder {
    fn new(verb: &str, routes: &str) -> Self {
        let builder = Self::bare();
        let routes = builder.workdir.write("routes.yaml", routes);
        builder.args(&[verb, "--routes", text(&routes), "--json"])
    }

    /// Listeners on free ports, and a directory of its own.
    fn bare() -> Self {
        let workdir = Workdir::new();
        let data = workdir.dir("data");
        let certs = workdir.dir("certs");
        let builder = Self { arguments: Vec::new(), environment: BTreeMap::new(), workdir: Arc::new(workdir) };
        ["EDD_HTTP_LISTEN", "EDD_HTTPS_LISTEN", "EDD_SSH_LISTEN", "EDD_ADMIN_LISTEN"]
            .into_iter()
            .fold(builder, |builder, listener| builder.env(listener, "127.0.0.1:0"))
            .env("EDD_DATA_DIR", text(&data))
            .env("EDD_CERTS_DIR", text(&certs))
            .env("RUST_BACKTRACE", "1")
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Where `name` is, or would be, in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.workdir.path().join(name)
    }

    fn program(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let program = Program::edd(&arguments).dir(self.workdir.path());
        self.environment.iter().fold(program, |program, (name, value)| program.env(name, value))
    }

    /// Runs one that ends by itself, such as for a mistake in its settings.
    pub async fn run(&self) -> Output {
        self.program().run().await
    }

    /// Puts a file into its directory before it starts: `certs/a.test.crt`.
    pub fn file(self, name: &str, text: &str) -> Self {
        let (dir, file) = name.rsplit_once('/').unwrap_or((".", name));
        let path = self.workdir.dir(dir).join(file);
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        self
    }

    /// Starts it and waits until it says what it listens on.
    pub async fn start(self) -> Edd {
        let (edd, is_ready) = self.launch().await;
        assert!(is_ready, "edd says what it listens on before its stdout ends");
        edd
    }

    /// Starts one that may end before it says what it listens on; whether it did say so.
    pub async fn launch(self) -> (Edd, bool) {
        let mut child = self.program().spawn(Stdio::null());
        let log = follow(child.stderr.take().expect("stderr is a pipe"));
        let (ready, stdout_ended) = first_line(child.stdout.take().expect("stdout is a pipe"));
        let unset = SocketAddr::from(([127, 0, 0, 1], 0));
        let builder = self;
        let mut edd = Edd {
            http: unset,
            https: unset,
            ssh: unset,
            admin: unset,
            child,
            log,
            stdout_ended,
            builder,
            may_end: false,
        };
        let Ok(line) = within("edd to say what it listens on", ready).await else {
            edd.may_end = true;
            return (edd, false);
        };
        let listeners: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in `{line}`"));
        let address = |name: &str| {
            let text = listeners[name].as_str().unwrap_or_else(|| panic!("`{name}` in `{line}`"));
            text.parse().unwrap_or_else(|e| panic!("`{name}` in `{line}`: {e}"))
        };
        match (listeners.get("http"), listeners.get("api")) {
            (Some(_), _) => {
                (edd.http, edd.https) = (address("http"), address("https"));
                edd.ssh = listeners.get("ssh").map_or(unset, |_| address("ssh"));
            }
            (None, Some(_)) => edd.http = address("api"),
            // A service that only follows others has neither.
            (None, None) => {}
        }
        edd.admin = address("admin");
        (edd, true)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

/// The first line of `stream`, and its end. All of it is read, so that the process never blocks on it.
fn first_line(stream: impl Read + Send + 'static) -> (oneshot::Receiver<String>, oneshot::Receiver<()>) {
    let (line_sender, first) = oneshot::channel();
    let (end_sender, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        // A test that has given up no longer listens; an unreadable pipe is at its end.
        if matches!(stream.read_line(&mut line), Ok(1..)) {
            let _ = line_sender.send(line);
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let _ = end_sender.send(());
    });
    (first, end)
}

/// Longest wait for containers to be ended by the edd whose they are.
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Edd {
    /// Containers outlive an edd that is killed; one that is asked to end takes them along.
    fn let_containers_go(&mut self) {
        let containers = std::fs::read_dir(self.builder.path("data/containers"));
        let has_some = containers.is_ok_and(|mut containers| containers.next().is_some());
        if !has_some || self.child.try_wait().expect("our own child").is_some() {
            return;
        }
        self.may_end = true;
        self.signal(Signal::TERM);
        let deadline = Instant::now() + CONTAINERS_TIMEOUT;
        while self.child.try_wait().expect("our own child").is_none() && Instant::now() < deadline {
            #[expect(clippy::disallowed_methods, reason = "nothing else is to be done until it has ended")]
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Edd {
    fn drop(&mut self) {
        self.let_containers_go();
        let ended = self.child.try_wait().expect("our own child");
        // Dead already, or dead now: either is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let lines = self.log.all();
        if std::thread::panicking() {
            eprintln!("--- the last of {} log lines of edd (exit: {ended:?})", lines.len());
            lines.iter().rev().take(40).rev().for_each(|line| eprintln!("{}", line.text));
            return;
        }
        let panicked = lines.iter().position(|line| line.text.contains("panicked"));
        if let Some(at) = panicked {
            let shown: Vec<_> = lines[at..].iter().take(30).map(|line| line.text.as_str()).collect();
            panic!("edd panicked:\n{}", shown.join("\n"));
        }
        assert!(self.may_end || ended.is_none(), "edd ended by itself: {ended:?}");
    }
}
