//! The process is killed at every point at which it can be, and another one goes on.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use edd_events::database::Kind;

use super::fixture::Fixture;
use super::scripted::Call;
use super::snapshot::assert_copied;
use crate::compute::platform::Phase;
use crate::scratch::on_each_database;

on_each_database![killed_anywhere_while_it_makes, killed_anywhere_while_it_removes];

/// Lets `future` go on so many times; what it came to, if it ended.
pub async fn poll<F: Future>(future: &mut Pin<Box<F>>, times: usize) -> Option<F::Output> {
    let mut left = times;
    poll_fn(|context| match (left, future.as_mut().poll(context)) {
        (_, Poll::Ready(output)) => Poll::Ready(Some(output)),
        (0 | 1, Poll::Pending) => Poll::Ready(None),
        (_, Poll::Pending) => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn killed_anywhere_while_it_makes(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut all = Vec::new();
    for polls in 1.. {
        assert!(polls < 400, "a visit ends");
        let id = fixture.create("x").await;
        let reconciler = fixture.reconciler();
        let mut visit = Box::pin(reconciler.visit(id));
        let done = poll(&mut visit, polls).await.is_some();
        drop(visit);
        fixture.round().await;
        let shown = (fixture.status(id).await, fixture.platform.phase(id));
        assert_eq!(shown, ("running".to_owned(), Some(Phase::Running)), "killed after {polls}");
        let told = fixture.messages().await;
        let kinds: Vec<_> = told.iter().map(|message| message.subject.rsplit('.').next().expect("a part")).collect();
        assert_eq!(kinds, ["created", "ip_assigned", "started"], "killed after {polls}");
        assert_eq!(told.last().map(|message| message.version), Some(3));
        all.extend(told);
        if done {
            break;
        }
    }
    assert!(fixture.platform.count(Call::Ensure) > fixture.platform.all().len(), "it was killed after making some");
    assert_copied(&fixture, &all).await;
}

async fn killed_anywhere_while_it_removes(kind: Kind) {
    let (fixture, mut kills) = (Fixture::new(kind).await, 0);
    for polls in 1.. {
        assert!(polls < 400, "a visit ends");
        kills += 1;
        let id = fixture.run("x").await;
        fixture.delete(&format!("/compute/containers/{id}")).await.done();
        let reconciler = fixture.reconciler();
        let mut visit = Box::pin(reconciler.visit(id));
        let done = poll(&mut visit, polls).await.is_some();
        drop(visit);
        fixture.later(Duration::from_secs(1)).await;
        assert_eq!(fixture.platform.phase(id), None, "killed after {polls}");
        if done {
            break;
        }
    }
    let deleted = fixture.happenings().await.into_iter().filter(|what| what == "deleted").count();
    assert_eq!(deleted, kills, "each is told once");
}
