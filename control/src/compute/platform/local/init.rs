//! The first process of a container: it makes the container from within, starts what its image says, runs sessions, and
//! clears away what has ended. When it ends, all of the container does.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::net::unix::OwnedReadHalf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::children::{self, Children, Ending};
use super::home::{Home, Plan};
use super::sessions::Sessions;
use super::tier::Tier;
use super::{privileges, process, rootfs, wire};
use crate::compute::platform::Exit;

/// Before what runs beside the main process is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What the first process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Its limits and its network are there.
    Go,
    /// Ask the main process to end.
    Stop,
}

/// What the first process tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum News {
    /// It is in its namespaces.
    Prepared,
    /// The main process runs.
    Started,
    /// It does not, for this reason.
    Failed(String),
    /// The main process has ended.
    Ended(Exit),
}

/// Is the first process of the container at `home`.
pub(super) async fn run(home: Home) -> io::Result<()> {
    let (mut orders, mut news) = wire::parent()?.into_split();
    let plan = home.plan()?.ok_or_else(|| io::Error::other("there is no plan.json"))?;
    // Before the root changes: edd finds it where it was.
    let listener = wire::listen(home.dir())?;
    let mut child_ended = signal(SignalKind::child())?;
    wire::say(&mut news, &News::Prepared).await?;
    if wire::hear::<Order>(&mut orders).await? != Some(Order::Go) {
        return Ok(());
    }
    let children = Rc::new(Children::default());
    let (pid, main) = match make(&plan, &home).and_then(|()| start(&plan, &children)) {
        Ok(started) => started,
        Err(error) => return wire::say(&mut news, &News::Failed(error.to_string())).await,
    };
    for daemon in plan.daemons.clone() {
        tokio::task::spawn_local(keep(daemon, plan.environment.clone(), children.clone()));
    }
    wire::say(&mut news, &News::Started).await?;
    let mut orders = receive(orders);
    let sessions = Sessions::new(plan.tier, plan.environment.clone(), children.clone());
    let ended = children::ended(main);
    tokio::pin!(ended);
    let exit = loop {
        tokio::select! {
            _ = child_ended.recv() => children.reap()?,
            accepted = listener.accept() => sessions.serve(accepted?.0),
            order = orders.recv() => match order {
                // One that ended in this moment needs no signal.
                Some(_) => drop(rustix::process::kill_process(pid, Signal::TERM)),
                // Nobody looks after this container any more.
                None => break None,
            },
            exit = &mut ended => break Some(exit),
        }
    };
    if plan.tier == Tier::Plain {
        end_all(&children)?;
    }
    match exit {
        Some(exit) => wire::say(&mut news, &News::Ended(exit)).await,
        None => Ok(()),
    }
}

/// Makes the container around this process.
fn make(plan: &Plan, home: &Home) -> io::Result<()> {
    if let Some(bridge) = &plan.bridge {
        bridge.enter(plan.record.address)?;
    }
    if plan.tier == Tier::Plain {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    rootfs::enter(plan, home)?;
    privileges::give_up(plan.tier)
}

fn start(plan: &Plan, children: &Children) -> io::Result<(Pid, Ending)> {
    spawn(&plan.entry, &plan.environment, &plan.working_dir, children)
}

/// Runs what is beside the main process, anew whenever it ends: a tenant may do that in the course of their work.
async fn keep(command: Vec<String>, environment: BTreeMap<String, String>, children: Rc<Children>) {
    loop {
        match spawn(&command, &environment, "/", &children) {
            Ok((_, ending)) => drop(children::ended(ending).await),
            Err(error) => eprintln!("{error}"),
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

fn spawn(
    command: &[String],
    environment: &BTreeMap<String, String>,
    working_dir: &str,
    children: &Children,
) -> io::Result<(Pid, Ending)> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("its image starts nothing"))?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .current_dir(working_dir)
        .stdin(Stdio::null())
        // Our standard error is the container's log.
        .stdout(Stdio::from(std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?))
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))?;
    let pid = Pid::from_child(&child);
    Ok((pid, children.add(pid.as_raw_pid())))
}

/// Reads orders until whoever gives them is gone.
fn receive(mut from: OwnedReadHalf) -> mpsc::Receiver<Order> {
    let (to, orders) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        while let Ok(Some(order)) = wire::hear(&mut from).await {
            if to.send(order).await.is_err() {
                return;
            }
        }
    });
    orders
}

/// Kills what has no namespace that would end with us.
fn end_all(children: &Children) -> io::Result<()> {
    loop {
        let left = process::descendants(rustix::process::getpid().as_raw_pid());
        if left.is_empty() {
            return children.reap();
        }
        left.into_iter().for_each(process::ProcessId::kill);
        children.reap()?;
    }
}
