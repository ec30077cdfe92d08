//! What an image's SSH server is set up with, put into a container that has not started yet.

use std::collections::BTreeMap;
use std::io;

use bollard::body_full;
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use edd_proto::ContainerId;
use tar::{Builder, EntryType, Header};

use super::{DockerPlatform, container, unavailable};
use crate::compute::platform::PlatformError;
use crate::compute::platform::sshd::{ConfigFile, EMPTY_DIR};

/// Directories that may be missing, the outer ones first, with their modes.
const DIRECTORIES: [&str; 5] = ["/etc/ssh", "/etc/ssh/edd", "/etc/ssh/sshd_config.d", "/run", EMPTY_DIR];

impl DockerPlatform {
    /// Writes the files of its SSH server, if it was made to have one. Again before each start, which costs little and
    /// needs no memory of what an earlier process did.
    pub(super) async fn set_up_sshd(&self, id: ContainerId) -> Result<(), PlatformError> {
        let made = self.ours(id).await?;
        let (Some(sshd), Some(ssh)) = (&self.sshd, container::ssh(&made)) else { return Ok(()) };
        let files = sshd.files(id, ssh.port, &environment(&made));
        let archive = archive(&files).map_err(|error| PlatformError::Unavailable(error.to_string()))?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let name = container::name(id);
        let upload = self.docker.upload_to_container(&name, Some(options), body_full(archive.into()));
        upload.await.map_err(unavailable)
    }
}

/// What its main process has in its environment.
fn environment(made: &bollard::models::ContainerInspectResponse) -> BTreeMap<String, String> {
    let variables = made.config.as_ref().and_then(|config| config.env.as_deref()).unwrap_or_default();
    let split = |variable: &String| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    variables.iter().filter_map(split).collect()
}

fn archive(files: &[ConfigFile]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let relative = |path: &'static str| path.trim_start_matches('/');
    for directory in DIRECTORIES.map(relative) {
        archive.append_data(&mut header(EntryType::Directory, 0o755, 0), format!("{directory}/"), io::empty())?;
    }
    for file in files {
        let (path, content) = (file.path.trim_start_matches('/'), file.content.as_bytes());
        archive.append_data(&mut header(EntryType::Regular, file.mode, content.len() as u64), path, content)?;
    }
    archive.into_inner()
}

/// The header of something of root's.
fn header(kind: EntryType, mode: u32, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}
