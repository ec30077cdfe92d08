//! Containers: made, looked at, started, stopped, put to sleep, woken, deleted.

use edd_events::publisher::Cause;
use edd_proto::{ContainerId, UserId};

use super::{Happening, NO_CONTAINER, Service, in_time, tell};
use crate::caller::{Admin, Caller, Permit};
use crate::compute::error::ComputeError;
use crate::compute::model::{Access, Container, Invalid, MountPaths, Status, Wanted, WantedContainer};
use crate::compute::platform::{Image, PullPolicy};
use crate::compute::store::{self, owners, ssh_keys};

/// Tries to find an id that is free: 51 random bits collide hardly ever.
const ID_TRIES: usize = 4;
/// Containers that one list has at most.
pub(super) const MAX_LISTED: u32 = 1000;

impl Service {
    /// Makes a container; it is there as soon as the platform has it.
    ///
    /// # Errors
    /// The user has too many, names keys or an image that do not exist, or wants one too small or too large.
    pub async fn create(
        &self,
        caller: &Caller,
        permit: Permit,
        wanted: WantedContainer,
        cause: &Cause,
    ) -> Result<Container, ComputeError> {
        self.check_size(&wanted)?;
        let image = self.image(wanted.image.as_deref()).await?;
        let mut transaction = self.database().begin().await?;
        if !owners::lock(&mut transaction, permit.owner()).await? {
            return Err(ComputeError::OwnerGone);
        }
        let most = self.config().quotas.containers;
        if store::containers::count(&mut *transaction, permit.owner()).await? >= i64::from(most) {
            return Err(ComputeError::Quota { what: "containers", most });
        }
        if let Some(keys) = &wanted.ssh_keys
            && !keys.is_empty()
            && ssh_keys::count_of(&mut *transaction, permit.owner(), keys).await? < keys.len() as i64
        {
            return Err(Invalid::new("ssh_key_ids", "keys of yours: one of these does not exist").into());
        }
        let ingress = wanted.ingress.clone();
        let mut container = self.new_container(caller, permit, wanted, image, cause);
        for tried in 1.. {
            if store::containers::insert(&mut transaction, &container).await? {
                break;
            }
            if tried == ID_TRIES {
                return Err(ComputeError::Conflict("no free id was found: try again"));
            }
            container.id = self.random_id();
        }
        tell(self.publisher(), &mut transaction, &mut container, Happening::Created, cause).await?;
        for rule in ingress {
            self.request_rule(&mut transaction, container.id, rule, cause).await?;
        }
        self.commit(transaction, &container).await?;
        Ok(container)
    }

    fn check_size(&self, wanted: &WantedContainer) -> Result<(), Invalid> {
        let sizes = &self.config().sizes;
        for (field, value, allowed) in
            [("memory_mb", wanted.memory_mb, &sizes.memory_mb), ("storage_gb", wanted.storage_gb, &sizes.storage_gb)]
        {
            if !allowed.contains(&value) {
                return Err(Invalid::new(field, format!("{} to {}", allowed.start(), allowed.end())));
            }
        }
        Ok(())
    }

    fn new_container(
        &self,
        caller: &Caller,
        permit: Permit,
        wanted: WantedContainer,
        image: String,
        cause: &Cause,
    ) -> Container {
        let now = self.now();
        Container {
            id: self.random_id(),
            owner: permit.owner(),
            owner_number: caller.number,
            owner_name: caller.username.to_string(),
            name: wanted.name.as_str().to_owned(),
            image,
            pull: wanted.pull,
            instance_type: wanted.instance_type,
            memory_mb: wanted.memory_mb,
            storage_gb: wanted.storage_gb,
            mount_paths: wanted.mount_paths,
            access: Access {
                ssh_enabled: wanted.ssh_enabled,
                ssh_keys: wanted.ssh_keys,
                https_enabled: true,
                redirect_to_https: false,
            },
            idle_timeout_s: u32::try_from(self.config().sleep.idle_timeout.as_secs()).unwrap_or(u32::MAX),
            wanted: Wanted::Running,
            generation: 1,
            cause: cause.clone(),
            status: Status::Pending,
            status_at: now,
            reason: String::new(),
            is_starting: false,
            address: None,
            http_port: 0,
            ssh: None,
            last_active_at: now,
            attempts: 0,
            due_at: Some(now),
            version: 0,
            created_at: now,
            deleted_at: None,
        }
    }

    /// The name of an image that there is; the default one if none is named.
    async fn image(&self, name: Option<&str>) -> Result<String, ComputeError> {
        let images = self.images().await?;
        match name {
            None => {
                let default = images.into_iter().find(|image| image.is_default);
                default.map(|image| image.name).ok_or(ComputeError::Conflict("name an image: there is no default"))
            }
            // The platform may be able to get others than it has.
            Some(name) if is_image_name(name) => Ok(name.to_owned()),
            Some(_) => {
                let rule = "1 to 255 of A-Z, a-z, 0-9 and . _ - / : @: GET /compute/images lists those that are here";
                Err(Invalid::new("image", rule).into())
            }
        }
    }

    /// What containers can be made of.
    ///
    /// # Errors
    /// The platform does not say.
    pub async fn images(&self) -> Result<Vec<Image>, ComputeError> {
        in_time(self.platform().images()).await
    }

    /// The caller's containers, the oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn containers(&self, permit: Permit) -> Result<Vec<Container>, ComputeError> {
        self.containers_of(permit.owner()).await
    }

    pub(in crate::compute) async fn containers_of(&self, user: UserId) -> Result<Vec<Container>, ComputeError> {
        Ok(store::containers::of_user(self.database().reader(), user, MAX_LISTED).await?)
    }

    /// One of the caller's containers.
    ///
    /// # Errors
    /// They have no such container.
    pub async fn container(&self, permit: Permit, id: ContainerId) -> Result<Container, ComputeError> {
        let found = store::containers::by_id(self.database().reader(), id).await?;
        found.filter(|it| it.owner == permit.owner() && it.deleted_at.is_none()).ok_or(NO_CONTAINER)
    }

    /// At most `most` containers of all users, with ids after `after`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn all_containers(
        &self,
        _: Admin,
        after: Option<&str>,
        most: u32,
    ) -> Result<Vec<Container>, ComputeError> {
        Ok(store::containers::page(self.database().reader(), after, most, false).await?)
    }

    /// Wants a container to run; one that failed is tried again at once.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn start(&self, permit: Permit, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        self.want(permit, id, cause, Wanted::Running).await
    }

    /// Wants a container stopped: nothing but its owner starts it again.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn stop(&self, permit: Permit, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        self.want(permit, id, cause, Wanted::Stopped).await
    }

    /// Wants a container asleep: the next request wakes it.
    ///
    /// # Errors
    /// The caller has no such container, or it is stopped.
    pub async fn hibernate(&self, permit: Permit, id: ContainerId, cause: &Cause) -> Result<(), ComputeError> {
        self.want(permit, id, cause, Wanted::Hibernated).await
    }

    async fn want(&self, permit: Permit, id: ContainerId, cause: &Cause, wanted: Wanted) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        let mut container = self.lock(&mut transaction, permit.owner(), id).await?;
        if wanted.is_asleep() && container.wanted == Wanted::Stopped {
            return Err(ComputeError::Conflict("the container is stopped: only one that runs can be put to sleep"));
        }
        container.want(wanted, self.now(), cause);
        self.commit(transaction, &container).await
    }

    /// Sets the directories that outlive a stop, from the next start on.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn set_mounts(&self, permit: Permit, id: ContainerId, paths: MountPaths) -> Result<(), ComputeError> {
        self.set(permit, id, |container| container.mount_paths = paths).await
    }

    /// Sets when the image is fetched, from the next start on.
    ///
    /// # Errors
    /// The caller has no such container.
    pub async fn set_pull(&self, permit: Permit, id: ContainerId, pull: PullPolicy) -> Result<(), ComputeError> {
        self.set(permit, id, |container| container.pull = pull).await
    }

    /// Sets after how many seconds without requests it sleeps; 0: never.
    ///
    /// # Errors
    /// The caller has no such container, or the time is too short or too long.
    pub async fn set_idle_timeout(&self, permit: Permit, id: ContainerId, seconds: u32) -> Result<(), ComputeError> {
        use crate::compute::model::{MAX_IDLE_TIMEOUT_S as MAX, MIN_IDLE_TIMEOUT_S as MIN};
        if seconds != 0 && !(MIN..=MAX).contains(&seconds) {
            return Err(Invalid::new("idle_timeout_s", format!("{MIN} to {MAX} seconds, or 0 for never")).into());
        }
        self.set(permit, id, |container| container.idle_timeout_s = seconds).await
    }

    /// Changes what no other service has to know.
    async fn set(
        &self,
        permit: Permit,
        id: ContainerId,
        change: impl FnOnce(&mut Container),
    ) -> Result<(), ComputeError> {
        let mut transaction = self.database().begin().await?;
        let mut container = self.lock(&mut transaction, permit.owner(), id).await?;
        change(&mut container);
        self.commit(transaction, &container).await
    }
}

fn is_image_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && name.len() <= 255 && name.bytes().all(allowed) && !name.contains("..")
}
