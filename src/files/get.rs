//! `edd files get`

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, IF_RANGE, RANGE};
use hyper::{Method, Response, StatusCode};

use super::Done;
use super::args::GetArgs;
use super::client::{Server, checksum, nothing};
use super::list::entries_below;
use super::patience::Patience;
use super::place::Place;
use super::progress::Progress;
use super::source::Hash;
use super::tree::below;
use super::trouble::Trouble;
use crate::exit::{Code, Failure};

/// Files of a folder that are on their way at once.
const AT_ONCE: usize = 4;
/// How long nothing may come before it is tried again, in seconds.
const STALL_SECONDS: u64 = 60;

pub async fn get(args: &GetArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    if args.target.as_deref() == Some(Path::new("-")) {
        return to_stdout(args, &server).await;
    }
    let done = if args.recursive { folder(args, &server).await } else { file(args, &server).await };
    Done::print(&done?, args.server.json);
    Ok(())
}

fn place(args: &GetArgs) -> Result<Place, Failure> {
    let needed = || Failure::new(Code::Failure, "name a file, as namespace/path; -r fetches all of a namespace");
    args.source.place().ok_or_else(needed)
}

async fn file(args: &GetArgs, server: &Server) -> Result<Vec<Done>, Failure> {
    let place = place(args)?;
    let target = match &args.target {
        Some(target) if !target.is_dir() => target.clone(),
        folder => folder.clone().unwrap_or_default().join(place.name()),
    };
    let remote = Remote::find(server, place).await?;
    let progress = Progress::new(Some(remote.size));
    let done = remote.fetch(server, &target, args.overwrite, &progress).await;
    progress.end();
    Ok(vec![done?])
}

async fn folder(args: &GetArgs, server: &Server) -> Result<Vec<Done>, Failure> {
    let entries = entries_below(server, &args.source).await?;
    let target = args.target.clone().unwrap_or_else(|| {
        let name = args.source.place().map_or_else(|| args.source.namespace.clone(), |place| place.name().to_owned());
        name.into()
    });
    let prefix = if args.source.path.is_empty() { String::new() } else { format!("{}/", args.source.path) };
    let mut wanted = Vec::new();
    for entry in entries {
        let inside = entry.path.strip_prefix(&prefix).and_then(|path| below(&target, path));
        let odd = || Failure::new(Code::Failure, format!("{}: a path that cannot be here", entry.path));
        let (file, namespace) = (inside.ok_or_else(odd)?, args.source.namespace.clone());
        let sha256 = entry.sha256.clone().unwrap_or_default();
        wanted.push((Remote { place: Place { namespace, path: entry.path }, size: entry.size, sha256 }, file));
    }
    let progress = Progress::new(Some(wanted.iter().map(|(remote, _)| remote.size).sum()));
    let fetching = stream::iter(&wanted).map(|(remote, file)| remote.fetch(server, file, args.overwrite, &progress));
    let done = fetching.buffered(AT_ONCE).try_collect().await;
    progress.end();
    done
}

async fn to_stdout(args: &GetArgs, server: &Server) -> Result<(), Failure> {
    let remote = Remote::find(server, place(args)?).await?;
    let progress = Progress::new(Some(remote.size));
    let mut sink = Sink { out: std::io::stdout(), hash: Hash::default(), received: 0 };
    let received = remote.receive(server, &mut sink, &progress).await;
    progress.end();
    received?;
    remote.check(sink.hash)
}

/// A file in the share, as it was when it was looked for.
struct Remote {
    place: Place,
    size: u64,
    sha256: String,
}

/// Where bytes go, and what they are.
struct Sink<W> {
    out: W,
    hash: Hash,
    received: u64,
}

impl<W: Write> Sink<W> {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.out.write_all(bytes)?;
        self.hash.add(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }
}

impl Remote {
    async fn find(server: &Server, place: Place) -> Result<Self, Failure> {
        let request = server.request(Method::HEAD, &place.url()).body(nothing())?;
        let answer = server.send(request).await.map_err(|trouble| match trouble {
            // The answer to a HEAD cannot say what there is not.
            Trouble::Refused { status: StatusCode::NOT_FOUND, .. } => {
                Failure::new(Code::Failure, format!("there is no file {place}"))
            }
            other => other.into(),
        })?;
        let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (Some(size), Some(sha256)) = (length, checksum(answer.headers())) else {
            return Err(Failure::new(Code::Failure, format!("{place} is no file")));
        };
        Ok(Self { place, size, sha256 })
    }

    /// Fetches it to `target`, under another name until it is whole and right.
    async fn fetch(
        &self,
        server: &Server,
        target: &Path,
        overwrite: bool,
        progress: &Progress,
    ) -> Result<Done, Failure> {
        let failed = |error: std::io::Error| Failure::new(Code::Failure, format!("{}: {error}", target.display()));
        progress.begin(self.place.to_string());
        if !overwrite && target.exists() {
            return Err(Failure::new(Code::Failure, format!("{} exists; --overwrite replaces it", target.display())));
        }
        if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let part = self.part(target);
        let mut sink = resume(&part).map_err(failed)?;
        progress.add(sink.received);
        if sink.received > self.size {
            sink.out.set_len(0).map_err(failed)?;
            return Err(Failure::new(Code::Failure, format!("{}: longer than it should be", part.display())));
        }
        self.receive(server, &mut sink, progress).await?;
        let durable = sink.out.sync_all();
        if let Err(failure) = self.check(sink.hash) {
            // The next run begins anew, not with bytes that are known to be wrong.
            fs::remove_file(&part).map_err(failed)?;
            return Err(failure);
        }
        durable.and_then(|()| fs::rename(&part, target)).map_err(failed)?;
        Ok(Done { file: self.place.to_string(), size: self.size, sha256: self.sha256.clone() })
    }

    /// The name of what is not whole yet: another one for each version of the file.
    fn part(&self, target: &Path) -> PathBuf {
        let mut name = Hash::default();
        name.add(target.file_name().unwrap_or_default().as_encoded_bytes());
        target.with_file_name(format!(".edd-{}-{:.16}.part", &name.digits()[..8], self.sha256))
    }

    /// Fetches what is missing, however often it takes.
    async fn receive<W: Write>(&self, server: &Server, sink: &mut Sink<W>, progress: &Progress) -> Result<(), Failure> {
        let mut patience = Patience::default();
        while sink.received < self.size {
            let before = sink.received;
            let broken = match self.receive_some(server, sink, progress).await {
                Ok(()) => Trouble::Broken(format!("{}: the answer ended before the file did", self.place)),
                Err(trouble) => trouble,
            };
            if sink.received > before {
                patience.renew();
            }
            if sink.received < self.size {
                patience.wait(broken, server, progress).await?;
            }
        }
        sink.out.flush()?;
        Ok(())
    }

    async fn receive_some<W: Write>(
        &self,
        server: &Server,
        sink: &mut Sink<W>,
        progress: &Progress,
    ) -> Result<(), Trouble> {
        let request = server.request(Method::GET, &self.place.url());
        // Always a part, so that there is no answer but the version that we began with.
        let request = request.header(RANGE, format!("bytes={}-", sink.received));
        let request = request.header(IF_RANGE, format!("\"{}\"", self.sha256)).body(nothing());
        let answer = server.send(request.map_err(Failure::from)?).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            let changed = format!("{} has changed since it was looked for: run it again", self.place);
            return Err(Failure::new(Code::Failure, changed).into());
        }
        self.take(answer, sink, progress).await
    }

    async fn take<W: Write>(
        &self,
        answer: Response<Incoming>,
        sink: &mut Sink<W>,
        progress: &Progress,
    ) -> Result<(), Trouble> {
        let mut body = answer.into_body();
        let patience = std::time::Duration::from_secs(STALL_SECONDS);
        loop {
            let frame = tokio::time::timeout(patience, body.frame()).await;
            let late = |_| Trouble::Broken(format!("no byte came for {STALL_SECONDS} s"));
            let Some(frame) = frame.map_err(late)? else { return Ok(()) };
            if let Ok(bytes) = frame.map_err(|error| Trouble::broken(&error))?.into_data() {
                progress.add(bytes.len() as u64);
                sink.add(&bytes)?;
            }
        }
    }

    fn check(&self, hash: Hash) -> Result<(), Failure> {
        match hash.digits() == self.sha256 {
            true => Ok(()),
            false => Err(Failure::new(
                Code::Failure,
                format!("{}: what came is not what was sent: its SHA-256 differs", self.place),
            )),
        }
    }
}

/// What there is of a file, read once for its checksum, to be gone on with.
fn resume(part: &Path) -> std::io::Result<Sink<fs::File>> {
    let mut hash = Hash::default();
    let mut received = 0;
    match fs::File::open(part) {
        Ok(mut file) => {
            let mut piece = vec![0; 256 * 1024];
            loop {
                match std::io::Read::read(&mut file, &mut piece)? {
                    0 => break,
                    read => {
                        hash.add(&piece[..read]);
                        received += read as u64;
                    }
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(Sink { out: OpenOptions::new().create(true).append(true).open(part)?, hash, received })
}
