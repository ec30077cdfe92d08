//! `edd files put`

use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Done;
use super::args::PutArgs;
use super::client::Server;
use super::progress::Progress;
use super::tree;
use super::trouble::Trouble;
use super::upload::{Upload, name, send_stdin};
use crate::exit::{Code, Failure};

/// Files of a folder that are on their way at once.
const AT_ONCE: usize = 4;
/// The share takes a thousand; some may be needed for what breaks off.
const MAX_PIECES: u64 = 900;

pub async fn put(args: &PutArgs) -> Result<(), Failure> {
    let server = Server::new(&args.server)?;
    let done = if args.source == Path::new("-") { stdin(args, &server).await } else { files(args, &server).await };
    Done::print(&done?, args.server.json);
    Ok(())
}

async fn stdin(args: &PutArgs, server: &Server) -> Result<Vec<Done>, Failure> {
    let target = args.target.place().filter(|_| !args.target.is_folder);
    let target =
        target.ok_or_else(|| Failure::new(Code::Failure, "what comes from stdin needs a name in the share"))?;
    let progress = Progress::new(None);
    let done = send_stdin(server, &target, args.overwrite, &progress).await;
    progress.end();
    Ok(vec![done?])
}

async fn files(args: &PutArgs, server: &Server) -> Result<Vec<Done>, Failure> {
    let uploads = uploads(args)?;
    let progress = Progress::new(Some(uploads.iter().map(|upload| upload.size).sum()));
    let sending = stream::iter(&uploads).map(|upload| send(upload, server, &progress)).buffered(AT_ONCE);
    let done = sending.try_collect().await;
    progress.end();
    done
}

async fn send(upload: &Upload, server: &Server, progress: &Progress) -> Result<Done, Failure> {
    upload.send(server, progress).await.map_err(|trouble| match trouble {
        Trouble::Refused { status, message } => {
            Trouble::Refused { status, message: format!("{}: {message}", upload.target) }.into()
        }
        other => other.into(),
    })
}

fn uploads(args: &PutArgs) -> Result<Vec<Upload>, Failure> {
    let PutArgs { source, overwrite, .. } = args;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Failure, format!("{}: {error}", source.display()));
    let about = std::fs::metadata(source).map_err(|error| failed(&error))?;
    // No upload may have more than a thousand.
    let piece_bytes = |size: u64| (args.piece_mib << 20).max(size.div_ceil(MAX_PIECES));
    let upload =
        |file, size, target| Upload { file, size, target, overwrite: *overwrite, piece_bytes: piece_bytes(size) };
    if about.is_file() {
        return Ok(vec![upload(source.clone(), about.len(), args.target.receive(&name(source)?))]);
    }
    if !args.recursive {
        return Err(failed(&"this is no file; -r sends a folder with all that is in it"));
    }
    let leaves = tree::leaves(source, &Progress::new(None))?;
    Ok(leaves.into_iter().map(|leaf| upload(leaf.file, leaf.size, args.target.join(&leaf.path))).collect())
}
