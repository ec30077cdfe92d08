//! Images of the engine.

use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use futures_util::TryStreamExt;

use super::{DockerPlatform, message, status, unavailable};
use crate::compute::platform::{Image, PlatformError, PullPolicy, Spec};

impl DockerPlatform {
    /// All that have a name.
    pub(super) async fn listed_images(&self) -> Result<Vec<Image>, PlatformError> {
        let options = ListImagesOptionsBuilder::new().build();
        let images = self.docker.list_images(Some(options)).await.map_err(unavailable)?;
        let tags = images.into_iter().flat_map(|image| {
            let size_mb = image.size / 1_000_000;
            image.repo_tags.into_iter().map(move |tag| (tag, size_mb))
        });
        let listed = tags.filter(|(tag, _)| !tag.starts_with("<none>")).map(|(tag, size_mb)| {
            let is_default = is_called(&tag, &self.default_image);
            Image { name: tag, description: format!("{size_mb} MB"), is_default }
        });
        Ok(listed.collect())
    }

    /// The image's settings; fetched first if the policy says so.
    pub(super) async fn image(&self, spec: &Spec) -> Result<ImageInspect, PlatformError> {
        let name = self.image_name(spec);
        let found = match self.docker.inspect_image(name).await {
            Ok(image) => Some(image),
            Err(error) if status(&error) == Some(404) => None,
            Err(error) if status(&error) == Some(400) => {
                return Err(PlatformError::Impossible(format!("{name} is no name of an image: {}", message(&error))));
            }
            Err(error) => return Err(unavailable(error)),
        };
        match (found, spec.pull) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => Ok(image),
            (None, PullPolicy::Never) => Err(PlatformError::Impossible(format!("there is no image {name} here"))),
            (found, _) => {
                let options = CreateImageOptionsBuilder::new().from_image(name).build();
                let pulled: Result<Vec<_>, Error> =
                    self.docker.create_image(Some(options), None, None).try_collect().await;
                match (pulled, found) {
                    (Ok(_), _) => self.docker.inspect_image(name).await.map_err(unavailable),
                    (Err(error), _) => {
                        Err(PlatformError::Impossible(format!("the image {name} cannot be fetched: {error}")))
                    }
                }
            }
        }
    }

    pub(super) fn image_name<'s>(&'s self, spec: &'s Spec) -> &'s str {
        if spec.image.is_empty() { &self.default_image } else { &spec.image }
    }
}

/// Whether an engine lists the image `name` as `tag`. Podman names a registry where there is none.
fn is_called(tag: &str, name: &str) -> bool {
    let prefix = ["localhost/", "docker.io/library/"].into_iter().find(|prefix| tag.starts_with(prefix));
    let own = &tag[prefix.map_or(0, str::len)..];
    [tag, own].into_iter().any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
}
