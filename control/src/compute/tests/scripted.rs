//! A platform in memory. It waits within every call, so that a caller may be cut off there, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::ContainerId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::compute::platform::{
    Capabilities, Control, Exec, Exit, Image, Input, LogQuery, Observed, Output, Phase, Platform, PlatformError,
    Session, Spec,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Observe,
    Ensure,
    Start,
    Stop,
    Pause,
    Delete,
    List,
}

/// When in a call it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// Its effect is there all the same.
    After,
}

#[derive(Clone, Debug)]
pub struct Held {
    pub spec: Option<Spec>,
    pub phase: Phase,
    address: u8,
}

#[derive(Debug)]
struct State {
    containers: BTreeMap<ContainerId, Held>,
    faults: VecDeque<(Call, When, PlatformError)>,
    /// Fails by chance.
    chaos: Option<StdRng>,
    can_pause: bool,
    /// What a start comes to instead of running.
    never_ready: Option<String>,
    calls: Vec<(Call, Option<ContainerId>)>,
    addresses: u8,
    ran: Vec<Exec>,
}

#[derive(Debug)]
pub struct Scripted {
    state: Mutex<State>,
    hints: broadcast::Sender<ContainerId>,
    made: Notify,
    /// What containers write.
    pub log: broadcast::Sender<Bytes>,
    /// Counted by its clones, of which every session has one.
    sessions: Arc<()>,
}

/// What a session says to what it is told.
fn said(input: Input) -> Output {
    match input {
        Input::Bytes(bytes) if *bytes == *b"exit" => Output::Exit(Exit::Code(0)),
        Input::Bytes(bytes) => Output::Stdout(bytes),
        Input::Eof => Output::Stdout(Bytes::from_static(b"eof")),
    }
}

/// And to what it is told besides.
fn done(control: Control) -> Output {
    match control {
        Control::Resize(size) => Output::Stdout(format!("{}x{}", size.columns, size.rows).into()),
        Control::Signal(name) => Output::Exit(Exit::Signal(name)),
    }
}

impl Default for Scripted {
    fn default() -> Self {
        let state = State {
            containers: BTreeMap::new(),
            faults: VecDeque::new(),
            chaos: None,
            can_pause: true,
            never_ready: None,
            calls: Vec::new(),
            addresses: 1,
            ran: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            hints: broadcast::Sender::new(16),
            made: Notify::new(),
            log: broadcast::Sender::new(64),
            sessions: Arc::default(),
        }
    }
}

pub fn unavailable() -> PlatformError {
    PlatformError::Unavailable("the engine is away".to_owned())
}

impl Scripted {
    /// A program that takes no input.
    pub const DEAF: &str = "deaf";

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next such call fails.
    pub fn fail(&self, call: Call, when: When, error: PlatformError) {
        self.state().faults.push_back((call, when, error));
    }

    /// Calls fail by chance, one in four, until `None`.
    pub fn chaos(&self, seed: Option<u64>) {
        self.state().chaos = seed.map(StdRng::seed_from_u64);
    }

    pub fn cannot_pause(&self) {
        self.state().can_pause = false;
    }

    pub fn never_ready(&self, why: Option<&str>) {
        self.state().never_ready = why.map(str::to_owned);
    }

    pub fn phase(&self, id: ContainerId) -> Option<Phase> {
        self.state().containers.get(&id).map(|held| held.phase.clone())
    }

    pub fn held(&self, id: ContainerId) -> Option<Held> {
        self.state().containers.get(&id).cloned()
    }

    pub fn all(&self) -> Vec<ContainerId> {
        self.state().containers.keys().copied().collect()
    }

    /// Resolves with the next call, counted from now on.
    pub fn made(&self) -> Notified<'_> {
        self.made.notified()
    }

    /// How often a call was made.
    pub fn count(&self, call: Call) -> usize {
        self.state().calls.iter().filter(|(made, _)| *made == call).count()
    }

    /// What was run in containers.
    pub fn ran(&self) -> Vec<Exec> {
        self.state().ran.clone()
    }

    /// How much of that still runs.
    pub fn running(&self) -> usize {
        Arc::strong_count(&self.sessions) - 1
    }

    /// Something happens to a container without anybody's doing.
    pub fn happen(&self, id: ContainerId, phase: Option<Phase>) {
        let mut state = self.state();
        match phase {
            None => drop(state.containers.remove(&id)),
            Some(phase) => {
                state.addresses += 1;
                let address = state.addresses;
                state.containers.entry(id).or_insert(Held { spec: None, phase: Phase::Stopped, address }).phase = phase;
            }
        }
        drop(state);
        // Nobody may be watching.
        let _ = self.hints.send(id);
    }

    /// Does `effect`, and fails before or after it if that is due.
    async fn call<T>(
        &self,
        call: Call,
        id: Option<ContainerId>,
        effect: impl FnOnce(&mut State) -> Result<T, PlatformError>,
    ) -> Result<T, PlatformError> {
        tokio::task::yield_now().await;
        let fault = {
            let mut state = self.state();
            state.calls.push((call, id));
            let chance = state.chaos.as_mut().and_then(|random| {
                let when = if random.random_bool(0.5) { When::Before } else { When::After };
                random.random_bool(0.25).then_some((call, when, unavailable()))
            });
            let scripted = state.faults.iter().position(|(failing, ..)| *failing == call);
            chance.or_else(|| scripted.and_then(|index| state.faults.remove(index)))
        };
        self.made.notify_waiters();
        if let Some((_, When::Before, error)) = &fault {
            return Err(error.clone());
        }
        tokio::task::yield_now().await;
        let done = effect(&mut self.state());
        tokio::task::yield_now().await;
        match fault {
            Some((_, _, error)) => Err(error),
            None => done,
        }
    }
}

fn observed(id: ContainerId, held: &Held) -> Observed {
    let is_up = matches!(held.phase, Phase::Running | Phase::Paused);
    let address = is_up.then(|| [10, 77, 0, held.address].into());
    Observed { id, phase: held.phase.clone(), address, http_port: 80, ssh: None }
}

fn lacking(id: ContainerId) -> impl Fn() -> PlatformError {
    move || PlatformError::NotFound(id)
}

#[async_trait]
impl Platform for Scripted {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            platform: "scripted",
            isolation: "none: it is a map".to_owned(),
            can_pause: self.state().can_pause,
            limits_memory: false,
            limits_cpu: false,
        }
    }

    async fn images(&self) -> Result<Vec<Image>, PlatformError> {
        let image = |name: &str, is_default| Image { name: name.to_owned(), description: String::new(), is_default };
        Ok(vec![image("other", false), image("base", true)])
    }

    async fn ensure(&self, spec: &Spec) -> Result<(), PlatformError> {
        self.call(Call::Ensure, Some(spec.id), |state| {
            if spec.image == "nowhere/to:find" {
                return Err(PlatformError::Impossible("there is no image nowhere/to:find".to_owned()));
            }
            let held = Held { spec: None, phase: Phase::Stopped, address: 0 };
            state.containers.entry(spec.id).or_insert(held).spec = Some(spec.clone());
            Ok(())
        })
        .await
    }

    async fn start(&self, id: ContainerId) -> Result<Observed, PlatformError> {
        self.call(Call::Start, Some(id), |state| {
            let (addresses, never_ready) = (&mut state.addresses, state.never_ready.clone());
            let held = state.containers.get_mut(&id).ok_or_else(lacking(id))?;
            match never_ready {
                Some(why) => held.phase = Phase::Failed(why),
                None if held.phase == Phase::Paused => held.phase = Phase::Running,
                None if held.phase == Phase::Running => {}
                None => {
                    *addresses = addresses.wrapping_add(1);
                    (held.phase, held.address) = (Phase::Running, *addresses);
                }
            }
            Ok(observed(id, held))
        })
        .await
    }

    async fn stop(&self, id: ContainerId, _: Duration) -> Result<(), PlatformError> {
        self.call(Call::Stop, Some(id), |state| {
            state.containers.get_mut(&id).ok_or_else(lacking(id))?.phase = Phase::Stopped;
            Ok(())
        })
        .await
    }

    async fn pause(&self, id: ContainerId) -> Result<(), PlatformError> {
        self.call(Call::Pause, Some(id), |state| {
            let held = state.containers.get_mut(&id).ok_or_else(lacking(id))?;
            if held.phase != Phase::Running || !state.can_pause {
                return Err(PlatformError::WrongPhase("only what runs can be paused".to_owned()));
            }
            held.phase = Phase::Paused;
            Ok(())
        })
        .await
    }

    async fn delete(&self, id: ContainerId) -> Result<(), PlatformError> {
        self.call(Call::Delete, Some(id), |state| {
            state.containers.remove(&id);
            Ok(())
        })
        .await
    }

    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>, PlatformError> {
        self.call(Call::Observe, Some(id), |state| Ok(state.containers.get(&id).map(|held| observed(id, held)))).await
    }

    async fn list(&self) -> Result<Vec<Observed>, PlatformError> {
        self.call(Call::List, None, |state| Ok(state.containers.iter().map(|(id, held)| observed(*id, held)).collect()))
            .await
    }

    fn watch(&self) -> broadcast::Receiver<ContainerId> {
        self.hints.subscribe()
    }

    /// Says back what it is told, until that is `exit`.
    async fn exec(&self, id: ContainerId, exec: Exec) -> Result<Session, PlatformError> {
        if self.phase(id) != Some(Phase::Running) {
            return Err(PlatformError::WrongPhase("it does not run".to_owned()));
        }
        let is_deaf = exec.command == [Self::DEAF];
        self.state().ran.push(exec);
        let (input, mut told) = mpsc::channel(4);
        let (control, mut controls) = mpsc::channel(4);
        let (say, output) = mpsc::channel(4);
        let running = self.sessions.clone();
        tokio::spawn(async move {
            let _running = running;
            let user_is_gone = say.clone();
            let answering = async {
                loop {
                    let output = tokio::select! {
                        Some(control) = controls.recv() => done(control),
                        input = told.recv(), if !is_deaf => match input {
                            Some(input) => said(input),
                            None => break,
                        },
                        else => std::future::pending().await,
                    };
                    if say.send(output).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = answering => {}
                () = user_is_gone.closed() => {}
            }
        });
        Ok(Session { input, control, output })
    }

    async fn logs(&self, _: ContainerId, query: LogQuery) -> Result<mpsc::Receiver<Bytes>, PlatformError> {
        let mut written = self.log.subscribe();
        let (say, lines) = mpsc::channel(4);
        tokio::spawn(async move {
            for line in 0..query.tail {
                if say.send(format!("old {line}").into()).await.is_err() {
                    return;
                }
            }
            if !query.follow {
                return;
            }
            loop {
                let said = match written.recv().await {
                    Ok(line) => say.send(line).await,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                if said.is_err() {
                    return;
                }
            }
        });
        Ok(lines)
    }

    async fn shutdown(&self, _: Duration) {}
}
