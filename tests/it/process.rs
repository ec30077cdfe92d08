//! The process: it starts, says where it listens, reads its routes again, and ends when asked to.

use rustix::process::Signal;

use crate::harness::{Edd, H2Upstream, Upstream, frames, within};

/// Asks until the upstream of this name answers.
async fn until_served_by(edd: &Edd, name: &str) {
    let asking = async { while edd.get("a.test", "/x").await.header("x-upstream") != name {} };
    within(&format!("upstream {name} to be asked"), asking).await;
}

#[tokio::test]
async fn it_says_that_it_lives_and_is_ready() {
    let upstream = Upstream::start().await;
    for edd in [Edd::gateway(upstream.routes()), Edd::up(upstream.routes())] {
        let edd = edd.start().await;
        for path in ["/livez", "/healthz", "/readyz", "/metrics"] {
            assert_eq!(edd.admin(path).await.status, 200, "{path}");
        }
        assert_eq!(edd.get("a.test", "/x").await.status, 200);
    }
}

#[tokio::test]
async fn routes_are_read_again_when_they_change() {
    let [old, new] = [Upstream::named("old").await, Upstream::named("new").await];
    let edd = Edd::gateway(old.routes()).start().await;
    until_served_by(&edd, "old").await;
    edd.write_routes(&new.routes());
    until_served_by(&edd, "new").await;
}

/// The file is back at what it said at first before the change was noticed without the signal.
#[tokio::test]
async fn a_signal_does_not_hide_a_later_change() {
    let [old, new] = [Upstream::named("old").await, Upstream::named("new").await];
    let mut edd = Edd::gateway(old.routes()).start().await;
    until_served_by(&edd, "old").await;
    edd.write_routes(&new.routes());
    edd.signal(Signal::HUP);
    until_served_by(&edd, "new").await;
    edd.write_routes(&old.routes());
    until_served_by(&edd, "old").await;
}

#[tokio::test]
async fn requests_in_flight_outlive_the_signal_to_stop() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(upstream.routes()).start().await;
    let mut waiting = edd.connect().await;
    waiting.send("GET /gate/exit HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    upstream.wait("the request", |seen| seen.is_whole()).await;
    edd.signal(Signal::TERM);
    edd.wait_log("the drain to begin", |line| line.text.contains("draining")).await;
    upstream.open("exit");
    assert_eq!(waiting.response().await.text(), "open");
    assert_eq!(edd.wait_exit().await.code(), Some(0));
}

/// The smallest exchange over HTTP/2 on both sides.
#[tokio::test]
async fn http2_is_spoken_on_both_sides() {
    let upstream = H2Upstream::start().await;
    let edd = Edd::gateway(upstream.routes()).start().await;
    let mut client = edd.connect().await;
    client.send_preface(&[]).await;
    client.send(frames::Frame::request(1, &frames::get("a.test", "/x")).bytes()).await;
    let head = client.frame_where(|frame| frame.kind == frames::HEADERS).await.expect("an answer");
    assert_eq!(head.indexed_status(), Some(200));
    let seen = upstream.wait("the request", |seen| seen.is_whole()).await;
    assert_eq!((seen.target.as_str(), upstream.take().len()), ("/x", 1));
}

/// One access line per request, whatever became of it, and none is lost at the end.
#[tokio::test]
async fn every_request_leaves_one_line() {
    let upstream = Upstream::start().await;
    let mut edd = Edd::gateway(format!("routes: [{{host: a.test, target: '{}'}}]", upstream.address)).start().await;
    let mut ids = Vec::new();
    for (host, target) in
        [("a.test", "/x"), ("b.test", "/x"), ("a.test", "/../x"), ("a.test", "/a#b"), ("a.test", "/y")]
    {
        ids.push(edd.get(host, target).await.header("x-request-id").to_owned());
    }
    edd.signal(Signal::TERM);
    assert_eq!(edd.wait_exit().await.code(), Some(0));
    for id in &ids {
        edd.access_line(id).await;
    }
    let logged: Vec<_> = edd.log().into_iter().filter(|line| ids.iter().any(|id| line.is_access(id))).collect();
    assert_eq!(logged.len(), ids.len(), "{logged:#?}");
}
