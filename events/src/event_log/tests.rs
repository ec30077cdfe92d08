//! The trail as operators ask for it.

use super::*;
use crate::bus::conformance;
use crate::database::Kind;
use crate::scratch::{Scratch, on_each_database};

on_each_database! {
    an_event_is_found_by_all_that_is_known_of_it,
    pages_follow_one_another,
    what_the_bus_has_is_published_until_it_loses_it,
    what_is_rolled_back_leaves_no_trace,
    a_tail_shows_each_row_once,
    a_tail_catches_up_with_more_than_a_page,
}

struct Fixture {
    _scratch: Scratch,
    database: Database,
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        let database = scratch.open(&[]).await;
        Self { _scratch: scratch, database }
    }

    async fn add(&self, id: &str, subject: &str, at: Micros) -> Message {
        let mut transaction = self.database.begin().await.expect("a transaction");
        let message = conformance::message(id, subject);
        outbox::add(&mut transaction, &message, at).await.expect("a row");
        self.database.commit(transaction).await.expect("a commit");
        message
    }

    async fn newest(&self, filter: &Filter, below: Option<i64>, most: usize) -> Vec<String> {
        ids(newest(&self.database, filter, below, most).await.expect("rows"))
    }

    async fn after(&self, filter: &Filter, above: i64, most: usize) -> Vec<String> {
        ids(after(&self.database, filter, above, most).await.expect("rows"))
    }

    async fn publish(&self) {
        let rows = outbox::pending(&self.database, 1000).await.expect("rows");
        let mut transaction = self.database.begin().await.expect("a transaction");
        outbox::mark_published(&mut transaction, &rows, 9).await.expect("a mark");
        self.database.commit(transaction).await.expect("a commit");
    }
}

fn ids(entries: Vec<Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.message.event_id).collect()
}

fn subject(filter: &str) -> Filter {
    Filter { subject: Some(filter.to_owned()), ..Filter::default() }
}

async fn an_event_is_found_by_all_that_is_known_of_it(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let first = fixture.add("1", "user.a.created", 10).await;
    fixture.add("2", "user.A.created", 20).await;
    fixture.add("3", "user.a_b.deleted", 30).await;
    fixture.add("4", "user.axb.deleted", 40).await;
    let all = newest(&fixture.database, &Filter::default(), None, 10).await.expect("rows");
    let expected = Entry {
        id: 1,
        message: Message { trace_parent: String::new(), headers: Default::default(), ..first },
        at: 10,
        status: Status::Pending,
        processed_by: None,
        processed_at: None,
        error: None,
    };
    assert_eq!(all[3], expected);
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        (Filter { event_id: text("2"), ..Filter::default() }, vec!["2"]),
        (Filter { entity: text("user.a"), ..Filter::default() }, vec!["1"]),
        (Filter { correlation_id: text("request-of-3"), ..Filter::default() }, vec!["3"]),
        (Filter { since: Some(20), before: Some(40), ..Filter::default() }, vec!["3", "2"]),
        (Filter { status: Some(Status::Failed), ..Filter::default() }, vec![]),
        (Filter { entity: text("user.a"), correlation_id: text("request-of-3"), ..Filter::default() }, vec![]),
        (Filter { since: Some(30), ..subject("user.>") }, vec!["4", "3"]),
        (subject("user.*.deleted"), vec!["4", "3"]),
        (subject("user.a.created"), vec!["1"]),
        (subject("user.a_b.*"), vec!["3"]),
        (subject("user.*"), vec![]),
        (subject("*.*.*"), vec!["4", "3", "2", "1"]),
        (subject("user.' OR 1=1 --.>"), vec![]),
    ];
    for (filter, expected) in filters {
        assert_eq!(fixture.newest(&filter, None, 10).await, expected, "{filter:?}");
        let mut forwards = fixture.after(&filter, 0, 10).await;
        forwards.reverse();
        assert_eq!(forwards, expected, "{filter:?}");
    }
}

async fn pages_follow_one_another(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    // More than is looked at in one go, and few of them wanted.
    for number in 0..1200 {
        let kind = if number % 400 == 0 { "deleted" } else { "updated" };
        fixture.add(&number.to_string(), &format!("user.u.{kind}"), number).await;
    }
    assert_eq!(fixture.newest(&subject("user.*.deleted"), None, 10).await, ["800", "400", "0"]);
    assert_eq!(fixture.after(&subject("user.*.deleted"), 0, 2).await, ["0", "400"]);
    assert_eq!(fixture.newest(&Filter::default(), Some(1000), 2).await, ["998", "997"]);
    assert_eq!(fixture.after(&Filter::default(), 1198, 10).await, ["1198", "1199"]);
    assert_eq!(fixture.newest(&Filter::default(), None, 1200).await.len(), 1200);
}

async fn what_the_bus_has_is_published_until_it_loses_it(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.add("1", "user.a.created", 10).await;
    let of = |status| Filter { status: Some(status), ..Filter::default() };
    for (pending, published) in [(1, 0), (0, 1)] {
        assert_eq!(fixture.newest(&of(Status::Pending), None, 10).await.len(), pending);
        assert_eq!(fixture.newest(&of(Status::Published), None, 10).await.len(), published);
        let all = newest(&fixture.database, &Filter::default(), None, 10).await.expect("rows");
        assert_eq!(all[0].status, if pending == 1 { Status::Pending } else { Status::Published });
        fixture.publish().await;
    }
    // The trail outlives the outbox.
    assert_eq!(outbox::prune(&fixture.database, "user.>", 10, 10).await.expect("a count"), 1);
    assert_eq!(fixture.newest(&of(Status::Published), None, 10).await, ["1"]);
    fixture.add("2", "user.b.created", 10).await;
    fixture.publish().await;
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    outbox::publish_again(&mut transaction, &["user.>"], 0).await.expect("a count");
    fixture.database.commit(transaction).await.expect("a commit");
    assert_eq!(fixture.newest(&of(Status::Pending), None, 10).await, ["2"]);
}

async fn what_is_rolled_back_leaves_no_trace(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    let message = conformance::message("1", "user.a.created");
    outbox::add(&mut transaction, &message, 1).await.expect("a row");
    completed(&mut transaction, "mailer", &[&message], 1).await.expect("a row");
    drop(transaction);
    assert!(fixture.newest(&Filter::default(), None, 10).await.is_empty());
}

async fn a_tail_shows_each_row_once(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.add("old", "user.a.created", 10).await;
    let mut tail = Tail::start(&fixture.database, Filter::default()).await.expect("a tail");
    let mut since =
        Tail::start(&fixture.database, Filter { since: Some(10), ..subject("user.a.>") }).await.expect("a tail");
    assert!(tail.next(&fixture.database).await.expect("rows").is_empty());
    assert_eq!(ids(since.next(&fixture.database).await.expect("rows")), ["old"]);
    for round in 0..3 {
        fixture.add(&format!("a{round}"), "user.a.updated", 20).await;
        fixture.add(&format!("b{round}"), "user.b.updated", 20).await;
        let seen = ids(tail.next(&fixture.database).await.expect("rows"));
        assert_eq!(seen, [format!("a{round}"), format!("b{round}")]);
        assert_eq!(ids(since.next(&fixture.database).await.expect("rows")), [format!("a{round}")]);
    }
    if kind == Kind::Sqlite {
        return;
    }
    // A row that is committed after one with a higher number.
    let mut slow = fixture.database.begin().await.expect("a transaction");
    let message = conformance::message("slow", "user.s.updated");
    outbox::add(&mut slow, &message, 30).await.expect("a row");
    fixture.add("quick", "user.q.updated", 30).await;
    assert_eq!(ids(tail.next(&fixture.database).await.expect("rows")), ["quick"]);
    fixture.database.commit(slow).await.expect("a commit");
    assert_eq!(ids(tail.next(&fixture.database).await.expect("rows")), ["slow"]);
    assert!(tail.next(&fixture.database).await.expect("rows").is_empty());
}

async fn a_tail_catches_up_with_more_than_a_page(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut tail = Tail::start(&fixture.database, Filter::default()).await.expect("a tail");
    for number in 0..2000 {
        fixture.add(&number.to_string(), "user.u.updated", number).await;
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(ids(tail.next(&fixture.database).await.expect("rows")));
    }
    assert_eq!(seen, (0..2000).map(|number| number.to_string()).collect::<Vec<_>>());
}
