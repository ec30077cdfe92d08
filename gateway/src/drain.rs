//! The end of a gateway's life: connections are told to finish, then they are waited for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use tokio::sync::watch;

/// Tells every connection, once, that it should end with the exchange it is in.
///
/// An idle connection polls its [`Ticket`] with every request; that touches nothing shared.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What this one is a part of.
    whole: Option<Drain>,
    draining: AtomicBool,
    close_idle: AtomicBool,
    cut: AtomicBool,
    next: AtomicU64,
    connections: Mutex<HashMap<u64, Arc<AtomicWaker>>>,
    engine: watch::Sender<bool>,
    open: watch::Sender<usize>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::part_of(None)
    }
}

impl Drain {
    /// A part that can be drained by itself: its connections are told what this one is told, too.
    pub fn part(&self) -> Self {
        Self::part_of(Some(self.clone()))
    }

    fn part_of(whole: Option<Self>) -> Self {
        let shared = Shared {
            whole,
            draining: AtomicBool::new(false),
            close_idle: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            next: AtomicU64::new(0),
            connections: Mutex::default(),
            engine: watch::channel(false).0,
            open: watch::channel(0).0,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Counts a connection until the ticket is dropped.
    pub fn register(&self) -> Ticket {
        let key = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let waker = Arc::new(AtomicWaker::new());
        let open = {
            let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.insert(key, Arc::clone(&waker));
            connections.len()
        };
        self.shared.open.send_replace(open);
        let whole = self.shared.whole.as_ref().map(|whole| Box::new(whole.register()));
        Ticket { drain: self.clone(), key, waker, whole }
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        *self.shared.open.borrow()
    }

    /// Tells every connection, present and future, to end with its next answer.
    ///
    /// Idle HTTP/1 connections stay open until [`Drain::close_idle`]: a request may be on its way
    /// on them, and would be lost.
    pub fn start(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.engine.send_replace(true);
        self.wake_all();
    }

    /// Closes the connections on which no request is being served.
    pub fn close_idle(&self) {
        self.shared.close_idle.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Ends every connection where it stands.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Release);
        self.wake_all();
    }

    fn wake_all(&self) {
        let connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.values().for_each(|waker| waker.wake());
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// The signal in the form that pingora takes.
    pub fn engine_signal(&self) -> watch::Receiver<bool> {
        self.shared.engine.subscribe()
    }

    /// Returns when no connection is open.
    pub async fn finished(&self) {
        let mut open = self.shared.open.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = open.wait_for(|open| *open == 0).await;
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Ticket {
    drain: Drain,
    key: u64,
    waker: Arc<AtomicWaker>,
    /// The same connection in what the drain is a part of.
    whole: Option<Box<Ticket>>,
}

impl Ticket {
    /// Whether the connection should finish; if not, the task is woken when it should.
    pub fn poll_draining(&self, context: &mut Context<'_>) -> bool {
        self.poll(|shared| &shared.draining, context)
    }

    /// Whether the connection should close if it is idle; if not, the task is woken when it should.
    pub fn poll_close_idle(&self, context: &mut Context<'_>) -> bool {
        self.poll(|shared| &shared.close_idle, context)
    }

    /// Whether the connection should end where it stands; if not, the task is woken when it should.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> bool {
        self.poll(|shared| &shared.cut, context)
    }

    fn poll(&self, flag: fn(&Shared) -> &AtomicBool, context: &mut Context<'_>) -> bool {
        let of_whole = self.whole.as_ref().is_some_and(|whole| whole.poll(flag, context));
        let flag = flag(&self.drain.shared);
        if of_whole || flag.load(Ordering::Acquire) {
            return true;
        }
        self.waker.register(context.waker());
        flag.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let open = {
            let mut connections = self.drain.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.remove(&self.key);
            connections.len()
        };
        self.drain.shared.open.send_replace(open);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn cut(ticket: &Ticket) {
        poll_fn(|context| if ticket.poll_cut(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test]
    async fn a_part_ends_alone_and_the_whole_ends_its_parts() {
        let whole = Drain::default();
        let parts = [whole.part(), whole.part()];
        let tickets = parts.each_ref().map(Drain::register);
        assert_eq!((whole.open(), parts[0].open()), (2, 1));
        let waiting: Vec<_> = tickets
            .into_iter()
            .map(|ticket| {
                tokio::spawn(async move {
                    cut(&ticket).await;
                })
            })
            .collect();
        parts[0].cut();
        parts[0].finished().await;
        assert_eq!((whole.open(), parts[1].open()), (1, 1));
        whole.cut();
        whole.finished().await;
        assert_eq!(parts[1].open(), 0);
        for task in waiting {
            task.await.unwrap();
        }
    }
}
