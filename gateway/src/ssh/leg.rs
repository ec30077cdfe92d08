//! The way from a session to its container: the container is made to run, compute told, and its sshd logged in to.

use std::sync::Arc;
use std::time::Duration;

use edd_proto::ContainerId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::containers::{Announced, WAKES_WITHIN, Woken};
use crate::ssh::admission::{self, Entrance, Refusal, Target};
use crate::ssh::authority::Holder;
use crate::ssh::calls::Calls;
use crate::ssh::session::Session;
use crate::ssh::upstream::{Destination, UNREACHABLE, Upstream};

/// Longest wait for a container that sleeps.
const WAKE_TIMEOUT: Duration = Duration::from_secs(120);
/// A container that has just become ready may tell so a moment before its sshd listens.
const DIAL_TRIES: u32 = 5;
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// Runs of a container that one session tries to get into: it may stop and start meanwhile.
const MAX_TRIES: u32 = 5;
/// Between two looks at whether a container is still where it is being called.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a session's channels lead to.
#[derive(Clone, Debug)]
pub enum Leg {
    Sshd(Upstream),
    /// Programs of the platform's.
    Programs,
    /// Whatever container each channel names.
    Jump,
}

impl Session {
    /// What the channels lead to, once it is there.
    ///
    /// # Errors
    /// There is nothing, or the session ends.
    pub async fn leg(&self) -> Result<Leg, Refusal> {
        let mut leg = self.leg.subscribe();
        let ended = || Refusal::new("ended", "the session was ended");
        let waiting = self.kill.token().run_until_cancelled(leg.wait_for(Option::is_some)).await;
        match waiting {
            Some(Ok(leg)) => leg.clone().unwrap_or_else(|| Err(ended())),
            Some(Err(_)) | None => Err(ended()),
        }
    }

    /// Makes the way to the container, and ends the session when there is none.
    pub async fn connect(self: Arc<Self>) {
        let made = self.kill.token().run_until_cancelled(self.make_leg()).await;
        match made {
            Some(Ok(leg)) => drop(self.leg.send_replace(Some(Ok(leg)))),
            Some(Err(refusal)) => {
                self.leg.send_replace(Some(Err(refusal.clone())));
                self.kill.kill(refusal.reason, refusal.message);
            }
            None => {}
        }
    }

    async fn make_leg(self: &Arc<Self>) -> Result<Leg, Refusal> {
        let admission::Way::Container { id, user } = &self.admission.way else { return Ok(Leg::Jump) };
        let look = || self.service.admitter.entrance(&self.admission);
        let mut tries = 1;
        loop {
            let entrance = self.awake(look()?, look).await?;
            let making = async { tokio::join!(self.way(&entrance, *id, user), self.announce(&entrance)) };
            let (leg, announced) = tokio::select! {
                made = making => made,
                // Whoever is not there any more does not say so: to find that out takes long.
                () = elsewhere(&entrance.target, look) => {
                    (Err(Refusal::new(UNREACHABLE, "the container is being stopped or started")), Announced::Unheard)
                }
            };
            match leg {
                Ok(leg) => {
                    self.settle(entrance, announced);
                    return Ok(leg);
                }
                // It fell asleep before it was known to be in use, was stopped, or was started anew.
                Err(refusal)
                    if tries < MAX_TRIES && refusal.reason == UNREACHABLE && look()?.target != entrance.target =>
                {
                    tries += 1;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn way(self: &Arc<Self>, entrance: &Entrance, id: ContainerId, user: &str) -> Result<Leg, Refusal> {
        match &entrance.target {
            Target::Exec => Ok(Leg::Programs),
            Target::Asleep => Err(Refusal::new("wake_failed", "the container fell asleep again")),
            Target::Down(refusal) => Err(refusal.clone()),
            Target::Sshd { address, host_key_fingerprint } => {
                let holder = Holder {
                    container: id,
                    owner: self.admission.owner,
                    key_id: self.admission.key_id,
                    session: self.id,
                };
                let (limits, patience) = (&self.service.limits, self.service.patience);
                let to = Destination { limits, patience, address, host_key_fingerprint, user };
                Ok(Leg::Sshd(self.log_in(&to, &holder).await?))
            }
        }
    }

    /// Has compute know that the container is in use, before anybody relies on it.
    pub async fn announce(&self, entrance: &Entrance) -> Announced {
        match (&self.service.presence, &entrance.visit) {
            (Some(presence), Some(visit)) => presence.announce(visit.life()).await,
            (None, _) | (_, None) => Announced::Taken,
        }
    }

    /// The session is in: it lasts as long as this run of the container.
    fn settle(&self, entrance: Entrance, announced: Announced) {
        let Entrance { visit, retired, .. } = entrance;
        if let Some(visit) = &visit {
            let (run, life) = (self.admission.run.clone(), Arc::clone(visit.life()));
            match announced {
                Announced::Taken | Announced::Unheard => run.settle(&life),
                Announced::Woken => {
                    // What is told of its sleep meanwhile is of the past.
                    let token = self.kill.token().clone();
                    tokio::spawn(async move {
                        token.run_until_cancelled(tokio::time::sleep(WAKES_WITHIN)).await;
                        run.settle(&life);
                    });
                }
            }
        }
        self.watch(retired);
        // It is set once.
        let _ = self.visit.set(visit);
    }

    async fn log_in(self: &Arc<Self>, to: &Destination<'_>, holder: &Holder) -> Result<Upstream, Refusal> {
        let mut tries = 0;
        loop {
            let signing =
                |error| Refusal::new("certificate", format!("the gateway cannot sign a certificate: {error}"));
            let pass = self.service.authority.certificate(holder).map_err(signing)?;
            let callee = Arc::new(Calls::of(self));
            match Upstream::log_in(to, pass, callee, &self.kill).await {
                Err(refusal) if refusal.reason == UNREACHABLE && tries + 1 < DIAL_TRIES => {
                    tries += 1;
                    tokio::time::sleep(DIAL_PAUSE).await;
                }
                made => return made,
            }
        }
    }

    /// The container once it runs, which one that sleeps is made to.
    ///
    /// # Errors
    /// It does not.
    pub async fn awake(
        &self,
        now: Entrance,
        look: impl Fn() -> Result<Entrance, Refusal>,
    ) -> Result<Entrance, Refusal> {
        match &now.target {
            Target::Sshd { .. } | Target::Exec => return Ok(now),
            Target::Down(refusal) => return self.started(now.container, refusal, look).await,
            Target::Asleep => {}
        }
        let asleep = |why: &str| Refusal::new("wake_failed", format!("the container sleeps, and {why}"));
        let wakes = self.service.wakes.as_ref().ok_or_else(|| asleep("nobody here can wake it"))?;
        let deadline = Instant::now() + WAKE_TIMEOUT;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match wakes.rouse(now.container, patience).await {
                // What was known before is of the past.
                Woken::Up | Woken::Otherwise => return look(),
                Woken::Full => return Err(asleep("too many wait for it already; try again in a moment")),
                Woken::Refused(why) => return Err(asleep(&why)),
                // Requests give up sooner than a person at a terminal.
                Woken::NotYet | Woken::TooLate if Instant::now() < deadline => {}
                Woken::NotYet | Woken::TooLate => {
                    return Err(asleep("it did not wake up in time; try again in a moment"));
                }
            }
        }
    }

    /// A container that is down, once it runs: compute may be starting it already.
    async fn started(
        &self,
        id: ContainerId,
        down: &Refusal,
        look: impl Fn() -> Result<Entrance, Refusal>,
    ) -> Result<Entrance, Refusal> {
        let Some(wakes) = &self.service.wakes else { return Err(down.clone()) };
        match wakes.starting(id, WAKE_TIMEOUT).await {
            Woken::Up | Woken::Otherwise => look(),
            Woken::TooLate => {
                let message = format!("container {id} is being started; try again in a moment");
                Err(Refusal::new("start_late", message))
            }
            Woken::Refused(_) | Woken::NotYet | Woken::Full => Err(down.clone()),
        }
    }

    /// Ends the session with the container's run.
    fn watch(&self, retired: CancellationToken) {
        let kill = self.kill.clone();
        tokio::spawn(async move {
            let over = kill.token().run_until_cancelled(retired.cancelled()).await;
            if over.is_some() {
                kill.kill("container_stopped", "the container was stopped or deleted");
            }
        });
    }
}

/// Resolves when the way in is not `target` any more.
async fn elsewhere(target: &Target, look: impl Fn() -> Result<Entrance, Refusal>) {
    while look().is_ok_and(|now| now.target == *target) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
