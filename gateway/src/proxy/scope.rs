//! What one request carries from the connection that it came by into the engine's callbacks, and
//! what they report back while it runs.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::decision::TlsPeer;
use crate::live::LiveRoute;
use crate::metrics::Listener;
use crate::proxy::context::Decided;
use crate::proxy::framing::Framing;
use crate::proxy::patience::{Patience, Upload};
use crate::reason::Reason;

/// A client's connection, as every request on it sees it.
#[derive(Debug)]
pub struct ConnInfo {
    pub listener: Listener,
    /// The port of containers that it came by, if it is one.
    pub dynamic_port: Option<u16>,
    /// The other end, or what a trusted PROXY header says it is.
    pub ip: IpAddr,
    /// The client's forwarding headers count.
    pub trusted: bool,
    pub tls: Option<TlsPeer>,
    /// An upgrade was answered with 101: bytes pass unframed from here on.
    pub upgraded: AtomicBool,
    /// The request's body was malformed; the engine only sees that reading failed.
    pub bad_body: AtomicBool,
    /// The engine wants more of the request than has come.
    pub awaits_client: AtomicBool,
    /// The upstream has had its time to answer: the next read of the connection fails, which is how
    /// the engine comes to give up.
    pub give_up: AtomicBool,
    /// The head of an answer is held back to leave with what follows it.
    pub holding: AtomicBool,
    /// Nothing followed: what is held has to leave now.
    pub release: AtomicBool,
    /// The gateway's drain time is over: what goes on is cut off.
    pub cut: AtomicBool,
}

impl ConnInfo {
    /// A connection on which nothing has happened yet.
    pub fn new(listener: Listener, dynamic_port: Option<u16>, ip: IpAddr, trusted: bool, tls: Option<TlsPeer>) -> Self {
        Self {
            listener,
            dynamic_port,
            ip,
            trusted,
            tls,
            upgraded: AtomicBool::new(false),
            bad_body: AtomicBool::new(false),
            awaits_client: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            release: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        }
    }
}

/// One request in flight.
#[derive(Debug)]
pub struct Scope {
    pub conn: Arc<ConnInfo>,
    /// The framing of an HTTP/1 head; none over HTTP/2.
    pub framing: Option<Framing>,
    decided: Mutex<Option<Box<Decided>>>,
    stream: OnceLock<Stream>,
    upload: OnceLock<Upload>,
    moved: AtomicU64,
    ended: OnceLock<Reason>,
}

/// An answer that has begun and may go on for long.
#[derive(Debug)]
struct Stream {
    retired: CancellationToken,
    idle_timeout: Duration,
}

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

impl Scope {
    pub fn new(conn: Arc<ConnInfo>, framing: Option<Framing>) -> Arc<Self> {
        let (stream, upload, ended) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { conn, framing, decided: Mutex::default(), stream, upload, moved: AtomicU64::new(0), ended })
    }

    /// The request was decided about already.
    pub fn set_decided(&self, decided: Box<Decided>) {
        *self.decided.lock().unwrap_or_else(PoisonError::into_inner) = Some(decided);
    }

    /// What was decided, for whoever serves the request.
    pub fn take_decided(&self) -> Option<Box<Decided>> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The scope of the request that the current task serves; none outside [`Scope::run`].
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The head of the answer has passed.
    pub fn answer_began(&self, live: &LiveRoute) {
        let stream = Stream { retired: live.retired().clone(), idle_timeout: live.route.timeouts.stream_idle };
        // A second final head cannot come; if it did, the first one's watch is as good.
        let _ = self.stream.set(stream);
    }

    /// A body begins to go upstream over HTTP/1; an answer is due `timeout` after its end.
    pub fn upload_began(&self, timeout: Duration) {
        let _ = self.upload.set(Upload::new(timeout));
    }

    /// The body is complete.
    pub fn upload_ended(&self) {
        if let Some(upload) = self.upload.get() {
            upload.complete();
        }
    }

    /// Whether the upstream was given up for not answering.
    pub fn gave_up(&self) -> bool {
        self.conn.give_up.load(Ordering::Acquire)
    }

    /// Bytes passed, in either direction.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Why the request was cut off, if it was.
    pub fn ended(&self) -> Option<Reason> {
        let cut = || self.conn.cut.load(Ordering::Acquire).then_some(Reason::ShuttingDown);
        self.ended.get().copied().or_else(cut)
    }

    /// Drives `serve` to its end, or until its route is retired or its stream idles; then it is
    /// dropped where it stands and there is no output.
    pub async fn run<F: Future>(self: Arc<Self>, serve: F) -> Option<F::Output> {
        let mut serve = pin!(CURRENT.scope(Arc::clone(&self), serve));
        // Most answers are complete in the poll that sees their head, and need no watch.
        let mut watch: Option<Pin<Box<dyn Future<Output = Reason> + Send>>> = None;
        let mut patience: Option<Patience> = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = serve.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            if let Some(upload) = self.upload.get()
                && self.stream.get().is_none()
            {
                let patience = patience.get_or_insert_with(|| Patience::new(upload));
                let moved = self.moved.load(Ordering::Relaxed);
                if patience.poll_exhausted(upload, &self.conn, moved, context) {
                    let _ = self.ended.set(Reason::UpstreamTimeout);
                    return Poll::Ready(None);
                }
            }
            if self.conn.holding.swap(false, Ordering::AcqRel) {
                // The engine reads from its client while it waits for more, and so sends it.
                self.conn.release.store(true, Ordering::Release);
                context.waker().wake_by_ref();
            }
            if watch.is_none() && self.stream.get().is_some() {
                watch = Some(Box::pin(Arc::clone(&self).watch()));
            }
            if let Some(watch) = &mut watch
                && let Poll::Ready(reason) = watch.as_mut().poll(context)
            {
                let _ = self.ended.set(reason);
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    async fn watch(self: Arc<Self>) -> Reason {
        let Some(stream) = self.stream.get() else { return std::future::pending().await };
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            tokio::select! {
                () = stream.retired.cancelled() => return Reason::RouteRemoved,
                () = tokio::time::sleep(stream.idle_timeout) => {
                    if self.moved.load(Ordering::Relaxed) == before {
                        return Reason::StreamIdle;
                    }
                }
            }
        }
    }
}
