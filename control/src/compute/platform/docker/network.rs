//! The network of an installation.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use sha2::{Digest, Sha256};

use super::container::INSTALLATION_LABEL;
use super::unavailable;
use crate::compute::platform::PlatformError;

/// Its id. It is made if it is not there.
pub(super) async fn ensure(docker: &Docker, installation: &str) -> Result<String, PlatformError> {
    if let Some(found) = oldest(docker, installation).await? {
        return Ok(found);
    }
    // Tenants do not reach one another's containers.
    let apart = ("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned());
    let network = NetworkCreateRequest {
        name: name(installation),
        driver: Some("bridge".to_owned()),
        options: Some(HashMap::from([apart])),
        labels: Some(HashMap::from([(INSTALLATION_LABEL.to_owned(), installation.to_owned())])),
        ..NetworkCreateRequest::default()
    };
    let made = docker.create_network(network).await.map_err(unavailable)?.id;
    let lost = || PlatformError::Unavailable("the Docker engine lost its network".to_owned());
    let found = oldest(docker, installation).await?.ok_or_else(lost)?;
    if found != made {
        // Another one was as quick. An engine takes two networks of one name, and then knows neither by it.
        docker.remove_network(&made).await.map_err(unavailable)?;
    }
    Ok(found)
}

/// One that no other installation has.
fn name(installation: &str) -> String {
    let digest = Sha256::digest(installation);
    format!("edd-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

async fn oldest(docker: &Docker, installation: &str) -> Result<Option<String>, PlatformError> {
    let label = format!("{INSTALLATION_LABEL}={installation}");
    let filters = HashMap::from([("label".to_owned(), vec![label])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let found = docker.list_networks(Some(options)).await.map_err(unavailable)?;
    let age = |network: &Network| (network.created.clone(), network.id.clone());
    Ok(found.into_iter().min_by_key(age).and_then(|network| network.id))
}
