//! Requests that wait for their container.

use std::time::{Duration, Instant};

use edd_proto::ContainerId;
use http::{HeaderName, Method, header};
use pingora_http::RequestHeader;

use crate::containers::{Wakes, Woken};
use crate::decision::Answer;
use crate::live::LiveRoute;
use crate::reason::Reason;

/// On the answer to a request that was held: for how many milliseconds.
pub const X_EDD_COLD_START: HeaderName = HeaderName::from_static("x-edd-cold-start");

/// Has the container behind `live` woken and waits for it. How long that took.
///
/// # Errors
/// It is not awake; the answer says why.
pub async fn hold(
    wakes: &Wakes,
    live: &LiveRoute,
    request: &RequestHeader,
    upgrades: bool,
) -> Result<Duration, Answer> {
    let Some(backend) = live.backend() else {
        return Err(Answer::new(Reason::Internal, "only containers sleep"));
    };
    // A person gets a page that comes back by itself; a program gets what it asked for.
    let patience = if is_person(request) && !upgrades { wakes.page_after() } else { wakes.longest_wait() };
    let began = Instant::now();
    match answer(wakes.wake(backend.container(), patience).await) {
        None => Ok(began.elapsed()),
        Some(answer) => Err(answer),
    }
}

/// Waits for a container that did not take a connection, if that is because it is still waking up.
///
/// # Errors
/// It does not take connections; the answer says why.
pub async fn join(wakes: &Wakes, id: ContainerId) -> Result<(), Answer> {
    match wakes.join(id, wakes.longest_wait()).await.and_then(answer) {
        None => Ok(()),
        Some(answer) => Err(answer),
    }
}

/// None: it is worth to look again how the container is.
fn answer(woken: Woken) -> Option<Answer> {
    match woken {
        Woken::Up | Woken::Otherwise => None,
        Woken::NotYet => Some(Answer::new(Reason::ContainerWaking, "this page looks again by itself")),
        Woken::Full => Some(Answer::new(Reason::WakeQueueFull, "try again in a moment")),
        Woken::Refused(why) => Some(Answer::new(Reason::WakeFailed, why)),
        Woken::TooLate => Some(Answer::new(Reason::WakeTimeout, "it was asked to run and took no connection")),
    }
}

fn is_person(request: &RequestHeader) -> bool {
    let accept = request.headers.get(header::ACCEPT).map(http::HeaderValue::as_bytes).unwrap_or_default();
    request.method == Method::GET && memchr::memmem::find(accept, b"text/html").is_some()
}
