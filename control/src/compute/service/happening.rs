//! What happened to a container, told with its whole state.

use edd_events::database::Transaction;
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::compute::{
    ContainerCreated, ContainerFailed, ContainerHibernated, ContainerHttpsToggled, ContainerIpAssigned,
    ContainerSshToggled, ContainerStarted, ContainerStopped, ContainerWoken,
};

use crate::compute::model::Container;

/// A change that others hear of. That a container is deleted is told where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compute) enum Happening {
    Created,
    Started,
    Stopped,
    SshToggled,
    HttpsToggled,
    AddressAssigned,
    Hibernated,
    Woken,
    Failed,
}

/// Tells that `what` happened to `container`, which is as it is afterwards, and sets its version.
pub(in crate::compute) async fn tell(
    publisher: &Publisher,
    transaction: &mut Transaction,
    container: &mut Container,
    what: Happening,
    cause: &Cause,
) -> Result<(), PublishError> {
    let (id, told) = (container.id.to_string(), Some(container.told()));
    macro_rules! add {
        ($event:ident { $($field:ident: $value:expr),* }) => {{
            let event = $event { container_id: id, container: told, $($field: $value,)* ..Default::default() };
            publisher.add(transaction, event, cause).await?
        }};
    }
    container.version = match what {
        Happening::Created => add!(ContainerCreated {
            user_id: container.owner_number,
            user_uid: container.owner.to_string(),
            owner_username: container.owner_name.clone(),
            name: container.name.clone(),
            memory_mb: i32::try_from(container.memory_mb).unwrap_or(i32::MAX),
            storage_gb: i32::try_from(container.storage_gb).unwrap_or(i32::MAX),
            image: container.image.clone(),
            instance_type: container.instance_type.as_str().to_owned()
        }),
        Happening::Started => add!(ContainerStarted {}),
        Happening::Stopped => add!(ContainerStopped {}),
        Happening::SshToggled => add!(ContainerSshToggled { ssh_enabled: container.access.ssh_enabled }),
        Happening::HttpsToggled => add!(ContainerHttpsToggled { https_enabled: container.access.https_enabled }),
        Happening::AddressAssigned => add!(ContainerIpAssigned {}),
        Happening::Hibernated => add!(ContainerHibernated {}),
        Happening::Woken => add!(ContainerWoken {}),
        Happening::Failed => add!(ContainerFailed { reason: container.reason.clone() }),
    };
    Ok(())
}
