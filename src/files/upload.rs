//! One file on its way to the share: at once if it is small, else by tus, from where it was.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use hyper::{Method, Response, StatusCode};

use super::Done;
use super::client::{Server, checksum, full, nothing, succeeded};
use super::memory::Memory;
use super::patience::Patience;
use super::place::Place;
use super::progress::Progress;
use super::source::{self, Hash, Sent};
use super::trouble::Trouble;
use crate::exit::{Code, Failure};

/// A file of at most so many bytes is sent in one request, and again from its beginning if that breaks off.
const SMALL_BYTES: u64 = 4 * 1024 * 1024;
/// How long an upload may stand still before it is taken for broken.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const UPLOAD_OFFSET: &str = "upload-offset";

/// A file and where it goes.
#[derive(Clone, Debug)]
pub struct Upload {
    pub file: PathBuf,
    pub size: u64,
    pub target: Place,
    pub overwrite: bool,
    /// A larger file is sent in pieces of so many: what a server that is killed loses.
    pub piece_bytes: u64,
}

impl Upload {
    /// Sends it. A file that is there already and is the same is as good as sent.
    pub async fn send(&self, server: &Server, progress: &Progress) -> Result<Done, Trouble> {
        progress.begin(self.target.to_string());
        let (expected, answered) = match self.size <= SMALL_BYTES {
            true => self.send_small(server, progress).await?,
            false => self.send_large(server, progress).await?,
        };
        let found = match answered {
            Some(found) => found,
            None => there(server, &self.target).await?.unwrap_or_default(),
        };
        if found != expected {
            let message =
                format!("{}: what arrived is not what is there now: did it change meanwhile?", self.file.display());
            return Err(Failure::new(Code::Failure, message).into());
        }
        Ok(Done { file: self.target.to_string(), size: self.size, sha256: expected })
    }

    /// What it was, and what the share says that it is.
    async fn send_small(&self, server: &Server, progress: &Progress) -> Result<(String, Option<String>), Trouble> {
        let bytes = Bytes::from(tokio::fs::read(&self.file).await?);
        let mut hash = Hash::default();
        hash.add(&bytes);
        let (expected, digest) = (hash.clone().digits(), STANDARD.encode(hash.bytes()));
        let path = format!("{}?overwrite={}", self.target.url(), self.overwrite);
        let mut patience = Patience::default();
        loop {
            let request = server.request(Method::PUT, &path).header("content-digest", format!("sha-256=:{digest}:"));
            let request = request.header(CONTENT_LENGTH, bytes.len()).body(full(bytes.clone()));
            match server.send(request.map_err(Failure::from)?).await {
                Ok(answer) => {
                    progress.add(bytes.len() as u64);
                    return Ok((expected, checksum(answer.headers())));
                }
                Err(trouble) if trouble.status() == Some(StatusCode::CONFLICT) => {
                    // It may be there because an answer was lost.
                    if there(server, &self.target).await?.as_ref() == Some(&expected) {
                        progress.add(bytes.len() as u64);
                        return Ok((expected.clone(), Some(expected)));
                    }
                    return Err(trouble);
                }
                Err(trouble) => patience.wait(trouble, server, progress).await?,
            }
        }
    }

    async fn send_large(&self, server: &Server, progress: &Progress) -> Result<(String, Option<String>), Trouble> {
        // The share computes the same while it receives.
        let hashing = tokio::spawn({
            let file = self.file.clone();
            async move { source::checksum(&file).await }
        });
        let memory = Memory::of(&server.base, &self.target, &self.file)?;
        let mut resumable = Resumable { upload: self, server, progress, memory, told: 0, furthest: 0 };
        let sent = resumable.run().await;
        let expected = hashing.await.map_err(Failure::from)??;
        match sent {
            Ok(answered) => Ok((expected, answered)),
            Err(trouble) if trouble.status() == Some(StatusCode::CONFLICT) => {
                match there(server, &self.target).await? == Some(expected.clone()) {
                    true => Ok((expected.clone(), Some(expected))),
                    false => Err(trouble),
                }
            }
            Err(trouble) => Err(trouble),
        }
    }
}

/// The checksum of a file in the share; none: there is none.
async fn there(server: &Server, place: &Place) -> Result<Option<String>, Trouble> {
    let request = server.request(Method::HEAD, &place.url()).body(nothing()).map_err(Failure::from)?;
    match server.send(request).await {
        Ok(answer) => Ok(checksum(answer.headers())),
        Err(trouble) if trouble.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// An upload by tus 1.0.
struct Resumable<'a> {
    upload: &'a Upload,
    server: &'a Server,
    progress: &'a Progress,
    memory: Memory,
    /// Bytes that the progress has been told of.
    told: u64,
    /// Bytes that have arrived for good, as far as it is known.
    furthest: u64,
}

impl Resumable<'_> {
    /// Sends what is missing, however often it takes. The checksum, if the share told it.
    async fn run(&mut self) -> Result<Option<String>, Trouble> {
        let mut patience = Patience::default();
        loop {
            let trouble = match self.advance(&mut patience).await {
                Ok(answered) => {
                    self.memory.forget();
                    return Ok(answered);
                }
                Err(trouble) if trouble.status() == Some(StatusCode::CONFLICT) => match self.has_moved().await {
                    Ok(true) => continue,
                    Ok(false) => trouble,
                    Err(later) => later,
                },
                Err(trouble) => trouble,
            };
            patience.wait(trouble, self.server, self.progress).await?;
        }
    }

    /// One try.
    async fn advance(&mut self, patience: &mut Patience) -> Result<Option<String>, Trouble> {
        let (location, mut offset) = self.position().await?;
        let mut found = None;
        loop {
            self.show(offset);
            if offset > self.furthest {
                self.furthest = offset;
                patience.renew();
            }
            if offset >= self.upload.size {
                return Ok(found);
            }
            let answer = self.patch(&location, offset).await?;
            let end = self::offset(answer.headers()).filter(|end| *end > offset);
            offset = end.ok_or_else(|| Trouble::Broken("the share took nothing of what was sent".to_owned()))?;
            found = checksum(answer.headers());
        }
    }

    /// Where the upload is, and how far: of the one that is remembered, else a new one.
    async fn position(&self) -> Result<(String, u64), Trouble> {
        if let Some(location) = self.memory.location() {
            if let Some(received) = self.received(&location).await? {
                return Ok((location, received));
            }
            self.memory.forget();
        }
        let location = self.begin().await?;
        self.memory.remember(&location)?;
        Ok((location, 0))
    }

    /// Whether more has arrived than is known: a request that broke off may be kept after its offset was asked for.
    async fn has_moved(&self) -> Result<bool, Trouble> {
        let Some(location) = self.memory.location() else { return Ok(false) };
        Ok(self.received(&location).await?.is_some_and(|received| received > self.furthest))
    }

    /// How much of it has arrived. None: there is no such upload any more.
    async fn received(&self, location: &str) -> Result<Option<u64>, Trouble> {
        let request = self.server.request(Method::HEAD, location).header(TUS.0, TUS.1).body(nothing());
        match self.server.send(request.map_err(Failure::from)?).await {
            Ok(answer) => Ok(Some(offset(answer.headers()).unwrap_or_default())),
            Err(Trouble::Refused { status: StatusCode::NOT_FOUND | StatusCode::GONE, .. }) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    async fn begin(&self) -> Result<String, Trouble> {
        let Place { namespace, path } = &self.upload.target;
        let overwrite = self.upload.overwrite.to_string();
        let pairs = [("namespace", namespace), ("path", path), ("overwrite", &overwrite)];
        let metadata = pairs.map(|(name, value)| format!("{name} {}", STANDARD.encode(value)));
        let request = self.server.request(Method::POST, "/storage/tus").header(TUS.0, TUS.1);
        let request = request.header("upload-length", self.upload.size).header("upload-metadata", metadata.join(","));
        let answer = self.server.send(request.body(nothing()).map_err(Failure::from)?).await?;
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map(|location| location.strip_prefix(&self.server.base).unwrap_or(location));
        let location = location.filter(|location| location.starts_with('/')).map(str::to_owned);
        location.ok_or_else(|| Trouble::Broken("the share does not say where to send the file".to_owned()))
    }

    async fn patch(&mut self, location: &str, offset: u64) -> Result<Response<Incoming>, Trouble> {
        let sent = Sent::default();
        let piece = self.upload.piece_bytes.min(self.upload.size - offset);
        let body =
            source::piece(&self.upload.file, offset..offset + piece, sent.clone(), self.progress.clone()).await?;
        let request = self.server.request(Method::PATCH, location).header(TUS.0, TUS.1);
        let request = request.header(UPLOAD_OFFSET, offset).header(CONTENT_TYPE, "application/offset+octet-stream");
        let request = request.header(CONTENT_LENGTH, piece).body(body).map_err(Failure::from)?;
        let answer = tokio::select! {
            answer = self.server.open(request) => answer,
            () = stands_still(&sent) => Err(Trouble::Broken(format!("no byte was taken for {} s", STALL_TIMEOUT.as_secs()))),
        };
        self.told = offset + sent.bytes();
        succeeded(answer?).await
    }

    /// Has the progress say what has arrived, and no more.
    fn show(&mut self, offset: u64) {
        match offset >= self.told {
            true => self.progress.add(offset - self.told),
            false => self.progress.take(self.told - offset),
        }
        self.told = offset;
    }
}

fn offset(headers: &HeaderMap) -> Option<u64> {
    headers.get(UPLOAD_OFFSET)?.to_str().ok()?.parse().ok()
}

/// Returns when nothing was sent for too long.
async fn stands_still(sent: &Sent) {
    let mut before = None;
    while before != Some(sent.bytes()) {
        before = Some(sent.bytes());
        tokio::time::sleep(STALL_TIMEOUT).await;
    }
}

/// Sends what comes from stdin, of which nobody knows how much it is and which cannot be had again.
pub async fn send_stdin(
    server: &Server,
    target: &Place,
    overwrite: bool,
    progress: &Progress,
) -> Result<Done, Trouble> {
    progress.begin(target.to_string());
    let sent = Sent::default();
    // As a file, because no feature of tokio is needed for that.
    let stdin = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let body = source::body(tokio::fs::File::from_std(stdin), sent.clone(), progress.clone());
    let path = format!("{}?overwrite={overwrite}", target.url());
    let request = server.request(Method::PUT, &path).body(body).map_err(Failure::from)?;
    let answer = succeeded(server.open(request).await?).await?;
    let sha256 = checksum(answer.headers()).unwrap_or_default();
    Ok(Done { file: target.to_string(), size: sent.bytes(), sha256 })
}

/// The name that a file has here.
pub fn name(file: &Path) -> Result<String, Failure> {
    let name = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        Failure::new(Code::Failure, format!("{}: a name that is not UTF-8 cannot be stored", file.display()))
    })
}
