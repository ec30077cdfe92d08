//! What is run in a container besides.

use super::*;

pub(in crate::compute::platform) async fn sessions_run_on_pipes(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("sessions");
    started(&platform, &spec).await;
    let mut echo = session(&platform, spec.id, shell("cat; echo aside >&2; exit 7")).await;
    echo.input.send(Input::Bytes("in and out".into())).await.expect("sent");
    // Its end of input.
    echo.input = tokio::sync::mpsc::channel(1).0;
    let ended = ("in and out".to_owned(), "aside\n".to_owned(), Exit::Code(7));
    assert_eq!(rest(&mut echo).await, ended);

    let environment = BTreeMap::from([("OWN".to_owned(), "mine".to_owned())]);
    let own = Exec { environment, ..shell("echo $OWN, $GREETING, $EDD_CONTAINER_ID") };
    let (stdout, ..) = rest(&mut session(&platform, spec.id, own).await).await;
    assert_eq!(stdout, format!("mine, hello there, {}\n", spec.id));

    let mut sleeper = session(&platform, spec.id, shell("echo ready; exec sleep 1000")).await;
    assert_eq!(sleeper.output.recv().await, Some(Output::Stdout("ready\n".into())));
    sleeper.control.send(Control::Signal("TERM".to_owned())).await.expect("sent");
    assert_eq!(rest(&mut sleeper).await.2, Exit::Signal("TERM".to_owned()));

    // Its output ends before it does.
    let script = "exec >&- 2>&-; until [ -e go ]; do sleep 0.05; done; exit 9";
    let mut silent = session(&platform, spec.id, shell(script)).await;
    said(&platform, spec.id, "touch go").await;
    assert_eq!(rest(&mut silent).await, (String::new(), String::new(), Exit::Code(9)));

    // What is left behind does not hold a session up.
    assert_eq!(said(&platform, spec.id, "sleep 1000 & echo gone").await, "gone\n");

    let unknown = Exec { command: vec!["/no/such/program".to_owned()], ..Exec::default() };
    let error = platform.exec(spec.id, unknown).await.map(drop);
    assert!(matches!(&error, Err(PlatformError::Impossible(why)) if why.contains("/no/such/program")), "{error:?}");
    let mut login = session(&platform, spec.id, Exec::default()).await;
    login.input.send(Input::Bytes("echo from a shell; exit 4\n".into())).await.expect("sent");
    let (stdout, _, exit) = rest(&mut login).await;
    assert!(stdout.contains("from a shell") && exit == Exit::Code(4), "{stdout} {exit:?}");
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn sessions_hold_back_what_is_not_read(machine: &dyn Machine) {
    const PIECES: usize = 200;
    let platform = machine.open().await;
    let spec = spec("pressure");
    started(&platform, &spec).await;
    let mut cat = session(&platform, spec.id, shell("cat")).await;
    let piece = bytes::Bytes::from(vec![b'x'; 30_000]);
    let mut sent = 0;
    // Nothing is read: at some point nothing more is taken.
    while tokio::time::timeout(Duration::from_millis(300), cat.input.send(Input::Bytes(piece.clone()))).await.is_ok() {
        sent += 1;
        assert!(sent < PIECES, "6 MB are held in memory");
    }
    let (input, whole) = (cat.input.clone(), piece.clone());
    cat.input = tokio::sync::mpsc::channel(1).0;
    let sending = tokio::spawn(async move {
        for _ in sent..PIECES {
            input.send(Input::Bytes(whole.clone())).await.expect("sent");
        }
    });
    let (stdout, _, exit) = rest(&mut cat).await;
    sending.await.expect("sent");
    assert_eq!((stdout.len(), exit), (PIECES * piece.len(), Exit::Code(0)));
    // Who takes no input takes signals.
    let mut deaf = session(&platform, spec.id, shell("exec sleep 1000")).await;
    while tokio::time::timeout(Duration::from_millis(300), deaf.input.send(Input::Bytes(piece.clone()))).await.is_ok() {
    }
    deaf.control.send(Control::Signal("TERM".to_owned())).await.expect("sent");
    assert_eq!(rest(&mut deaf).await.2, Exit::Signal("TERM".to_owned()));
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn sessions_run_on_a_terminal(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("terminal");
    started(&platform, &spec).await;
    let terminal = Some(Size { columns: 97, rows: 31 });
    let script = "trap 'stty size' WINCH; tty; stty size; echo ready; while :; do sleep 0.02; done";
    let mut session = session(&platform, spec.id, Exec { terminal, ..shell(script) }).await;
    let mut seen = String::new();
    let more = async |session: &mut Session, seen: &mut String, until: &str| {
        while !seen.contains(until) {
            match within(until, session.output.recv()).await {
                Some(Output::Stdout(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} before {until:?} in {seen:?}"),
            }
        }
    };
    more(&mut session, &mut seen, "ready").await;
    assert!(seen.contains("/dev/pts/") && seen.contains("31 97"), "{seen}");
    session.control.send(Control::Resize(Size { columns: 50, rows: 20 })).await.expect("sent");
    more(&mut session, &mut seen, "20 50").await;
    // Ctrl-C is the terminal's to understand.
    session.input.send(Input::Bytes(vec![3].into())).await.expect("sent");
    let (_, _, exit) = rest(&mut session).await;
    assert!([Exit::Signal("INT".to_owned()), Exit::Code(130)].contains(&exit), "{exit:?}");
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn sessions_end_when_they_are_dropped(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("dropped");
    started(&platform, &spec).await;
    for terminal in [None, Some(Size { columns: 80, rows: 24 })] {
        let mut dropped = session(&platform, spec.id, Exec { terminal, ..shell("echo $$; exec sleep 1000") }).await;
        let Some(Output::Stdout(pid)) = dropped.output.recv().await else { panic!("no number") };
        let pid = String::from_utf8_lossy(&pid).trim().to_owned();
        let alive = format!("kill -0 {pid} 2>/dev/null && echo alive || echo ended");
        assert_eq!(said(&platform, spec.id, &alive).await, "alive\n");
        drop(dropped);
        until("an end", || said(&platform, spec.id, &alive), |said| said == "ended\n").await;
    }
    end(machine, platform).await;
}

pub(in crate::compute::platform) async fn logs_are_told_and_followed(machine: &dyn Machine) {
    let platform = machine.open().await;
    let spec = spec("logs");
    let observed = started(&platform, &spec).await;
    let mut following = platform.logs(spec.id, LogQuery { tail: 1000, follow: true }).await.expect("a log");
    let mut heard = Vec::new();
    let listens = format!(":{}", observed.http_port);
    let is_told = |lines: &[bytes::Bytes]| lines.iter().any(|line| String::from_utf8_lossy(line).ends_with(&listens));
    while !is_told(&heard) {
        heard.push(within("a line", following.recv()).await.expect("a line"));
    }
    assert!(heard.iter().all(|line| !line.contains(&b'\n')));
    let mut told = platform.logs(spec.id, LogQuery { tail: 1000, follow: false }).await.expect("a log");
    let mut lines = Vec::new();
    while let Some(line) = within("a line", told.recv()).await {
        lines.push(line);
    }
    assert!(is_told(&lines), "{lines:?}");
    let mut none = platform.logs(spec.id, LogQuery { tail: 0, follow: false }).await.expect("a log");
    assert_eq!(none.recv().await, None);
    platform.stop(spec.id, GRACE).await.expect("stopped");
    while within("the end of the log", following.recv()).await.is_some() {}
    end(machine, platform).await;
}
