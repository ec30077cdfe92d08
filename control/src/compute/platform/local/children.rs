//! The children of a container's first process: those that it starts, and those whose parents are gone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use rustix::process::{WaitOptions, WaitStatus};
use tokio::sync::watch;

use super::signal;
use crate::compute::platform::Exit;

/// How a child ended, once it has.
pub(super) type Ending = watch::Receiver<Option<Exit>>;

/// Children that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Children(RefCell<HashMap<i32, watch::Sender<Option<Exit>>>>);

impl Children {
    /// Looks after a process from its start on. There must be no `await` in between: its end would be missed.
    pub(super) fn add(&self, pid: i32) -> Ending {
        let (ended, ending) = watch::channel(None);
        self.0.borrow_mut().insert(pid, ended);
        ending
    }

    /// Clears away all that have ended, and tells who waits.
    pub(super) fn reap(&self) -> io::Result<()> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(ended) = self.0.borrow_mut().remove(&pid.as_raw_pid()) {
                        ended.send_replace(Some(exit(status)));
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, Some(number)) => Exit::Signal(signal::name(number)),
        // Without WUNTRACED and WCONTINUED there is no third way.
        (None, None) => Exit::Code(u8::MAX),
    }
}

/// Waits for a child's end.
pub(super) async fn ended(mut ending: Ending) -> Exit {
    let exit = match ending.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone(),
        Err(_) => None,
    };
    // Whoever looks after the children goes last.
    exit.unwrap_or(Exit::Code(u8::MAX))
}
