//! Looks after one container from outside of it and outlives edd: makes what the container needs of the machine, keeps
//! its log, and writes down how it ended once nothing of it is left.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::home::{Ended, Home, Plan, Run};
use super::init::{News, Order};
use super::launch::SEARCH_PATH;
use super::process::{self, Handle, ProcessId};
use super::tier::Tier;
use super::{log, role, wire};
use crate::compute::platform::Exit;

/// How long the first process may take to come up.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an earlier supervisor may take to end, once it has written that down.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the log may stay silent after the end, while something still holds it open.
const QUIET: Duration = Duration::from_millis(200);
const PIECE_BYTES: usize = 16 * 1024;

/// What edd is told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    Started,
    /// It was not, for this reason, and nothing of it is left.
    Failed(String),
}

/// Supervises the container at `home` until it ends.
pub(super) async fn run(home: Home) -> io::Result<()> {
    let mut edd = wire::parent()?;
    // From before the start on: a stop that comes early is not missed.
    let mut stop = signal(SignalKind::terminate())?;
    let Some(_lock) = home.lock(LOCK_TIMEOUT).await? else {
        let failed = Report::Failed("another process looks after it".to_owned());
        return wire::say(&mut edd, &failed).await;
    };
    let plan = home.plan()?.ok_or_else(|| io::Error::other("there is no plan.json"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (log, log_input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let log = Log { writer: log::Writer::open(home.dir())?, output: Receiver::from_owned_fd(log)? };
    let mut container = Container { home, plan, child: None, log };
    let started = match tokio::time::timeout(PREPARE_TIMEOUT, container.start(log_input.into())).await {
        Ok(started) => started,
        Err(_) => Err(io::Error::other(format!("it did not come up within {} s", PREPARE_TIMEOUT.as_secs()))),
    };
    let failure = match started {
        Ok((orders, news)) => {
            // An edd that is gone finds it when it comes back.
            let _ = wire::say(&mut edd, &Report::Started).await;
            drop(edd);
            container.watch(orders, news, &mut stop).await?
        }
        Err(error) => {
            let said = container.end().await?;
            let reason = if said.is_empty() { error.to_string() } else { format!("{error}; {said}") };
            container.home.save_ended(&Ended { failure: Some(reason.clone()) })?;
            return wire::say(&mut edd, &Report::Failed(reason)).await;
        }
    };
    container.end().await?;
    container.home.save_ended(&Ended { failure })
}

struct Container {
    home: Home,
    plan: Plan,
    /// The child that ends with the container: its first process, or the unshare(1) that waits for that.
    child: Option<Handle>,
    log: Log,
}

impl Container {
    /// Brings the first process up, gives it its limits and its network, and has it start the image.
    async fn start(&mut self, log: Stdio) -> io::Result<(OwnedWriteHalf, OwnedReadHalf)> {
        let cgroup = self.plan.cgroup.clone();
        if let Some(cgroup) = &cgroup {
            cgroup.make(self.plan.limits)?;
        }
        let (mut news, mut orders) = self.spawn(log)?.into_split();
        expect(&mut news, &News::Prepared).await?;
        // Who listens there is the first process; the kernel tells its number as we see it.
        let pid = wire::connect(self.home.dir())?.peer_cred()?.pid();
        let pid = pid.ok_or_else(|| io::Error::other("its first process has no number"))?;
        if let Some(cgroup) = &cgroup {
            cgroup.enter(pid)?;
        }
        if let Some(bridge) = &self.plan.bridge {
            bridge.link(&self.plan.record.spec.id, self.plan.record.address, pid)?;
        }
        // Known before anything of the tenant runs.
        self.home.save_run(&Run::new(ProcessId::of(pid)?, &self.plan)?)?;
        wire::say(&mut orders, &Order::Go).await?;
        expect(&mut news, &News::Started).await?;
        Ok((orders, news))
    }

    /// Starts the first process with a connection to it as its standard input.
    fn spawn(&mut self, log: Stdio) -> io::Result<tokio::net::UnixStream> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        let Plan { tier, program, .. } = &self.plan;
        let mut command = match tier.flags() {
            [] => Command::new(&program.path),
            flags => {
                let mut unshare = Command::new("unshare");
                unshare.args(flags).arg("--").arg(&program.path);
                unshare
            }
        };
        let child = command
            .args(&program.arguments)
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env(role::VARIABLE, role::init(self.home.dir())?)
            .current_dir(self.home.dir())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(far)))
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start its first process: {error}")))?;
        self.child = ProcessId::of(child.id().cast_signed())?.open();
        near.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(near)
    }

    /// Keeps the log until the container ends, and says why it did, unless it was told to.
    async fn watch(
        &mut self,
        mut orders: OwnedWriteHalf,
        news: OwnedReadHalf,
        stop: &mut tokio::signal::unix::Signal,
    ) -> io::Result<Option<String>> {
        let mut news = receive(news);
        let (mut is_stopping, mut exit, mut log_is_open) = (false, None, true);
        let child = self.child.take();
        let ended = async {
            match &child {
                Some(child) => child.ended().await,
                None => Ok(()),
            }
        };
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => break ended?,
                Some(last) = news.recv() => exit = Some(last),
                _ = stop.recv() => {
                    is_stopping = true;
                    // It may be ending by itself.
                    let _ = wire::say(&mut orders, &Order::Stop).await;
                }
                is_open = self.log.copy(), if log_is_open => log_is_open = is_open?,
            }
        }
        // Said before the end, heard perhaps after it.
        if exit.is_none() {
            exit = news.recv().await;
        }
        Ok(if is_stopping { None } else { Some(self.reason(exit)) })
    }

    /// Why it ended by itself, in words for its owner.
    fn reason(&self, exit: Option<Exit>) -> String {
        let kills = self.plan.cgroup.as_ref().map_or(0, |cgroup| cgroup.out_of_memory_kills());
        match exit {
            Some(Exit::Code(code)) if kills == 0 => format!("its main process ended by itself with code {code}"),
            Some(Exit::Signal(name)) if kills == 0 => format!("its main process was ended by the signal {name}"),
            None if kills == 0 => "it was killed from outside".to_owned(),
            _ => format!("it needed more than its {} MB of memory, and was killed", self.plan.limits.memory_mb),
        }
    }

    /// Ends what is left, and takes back what the machine gave. Returns the last that it said.
    async fn end(&mut self) -> io::Result<String> {
        if let Some(child) = self.child.take() {
            child.signal(Signal::KILL);
            child.ended().await?;
        }
        self.kill_orphans();
        let said = self.log.drain().await?;
        if let Some(cgroup) = &self.plan.cgroup {
            cgroup.remove().await?;
        }
        if let Some(bridge) = &self.plan.bridge {
            bridge.unlink(&self.plan.record.spec.id)?;
        }
        Ok(said)
    }

    /// Kills what has come to us because its parents ended: without namespaces nothing else would.
    fn kill_orphans(&self) {
        if self.plan.tier != Tier::Plain {
            return;
        }
        loop {
            let left = process::descendants(rustix::process::getpid().as_raw_pid());
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(ProcessId::kill);
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        }
    }
}

/// Hears that what must come next has come.
async fn expect(news: &mut OwnedReadHalf, due: &News) -> io::Result<()> {
    match wire::hear(news).await? {
        Some(heard) if heard == *due => Ok(()),
        Some(News::Failed(reason)) => Err(io::Error::other(reason)),
        Some(other) => Err(io::Error::other(format!("its first process said {other:?} when {due:?} was due"))),
        None => Err(io::Error::other("its first process ended early")),
    }
}

/// Hears how the main process ended.
fn receive(mut from: OwnedReadHalf) -> mpsc::Receiver<Exit> {
    let (to, news) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Ok(Some(News::Ended(exit))) = wire::hear(&mut from).await {
            // Nobody asks any more, if it fails.
            let _ = to.send(exit).await;
        }
    });
    news
}

/// From the container's pipe to its log.
struct Log {
    writer: log::Writer,
    output: Receiver,
}

impl Log {
    /// Copies what comes next; false when no more can come.
    async fn copy(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; PIECE_BYTES];
        let bytes = self.output.read(&mut piece).await?;
        self.keep(&piece[..bytes]);
        Ok(bytes > 0)
    }

    /// Copies what is left, and returns the end of it.
    async fn drain(&mut self) -> io::Result<String> {
        let mut last = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes @ 1..) = tokio::time::timeout(QUIET, self.output.read(&mut piece)).await.unwrap_or(Ok(0)) {
            self.keep(&piece[..bytes]);
            last = piece[..bytes].to_vec();
        }
        Ok(String::from_utf8_lossy(&last).trim().to_owned())
    }

    /// A full disk must not stop the container whose log it is.
    fn keep(&mut self, bytes: &[u8]) {
        if let Err(error) = self.writer.write(bytes) {
            eprintln!("a container's log is not written: {error}");
        }
    }
}
