//! `edd files`: the file share from a shell. One file per noun.

mod args;
mod change;
mod client;
mod get;
mod list;
mod localhost;
mod memory;
mod patience;
mod place;
mod progress;
mod put;
mod share;
mod source;
mod tree;
mod trouble;
mod upload;

use crate::admin_client::block_on;
use crate::exit::{Code, Outcome};

pub use args::FilesCommand;

/// What a transfer has done, as `--json` prints it.
#[derive(Debug, serde::Serialize)]
struct Done {
    /// `namespace/path`
    file: String,
    size: u64,
    sha256: String,
}

impl Done {
    /// On stdout is what scripts go on with.
    fn print(done: &[Self], as_json: bool) {
        match as_json {
            true => println!("{}", serde_json::json!({ "files": done })),
            false => done.iter().for_each(|done| println!("{}", done.file)),
        }
    }
}

pub fn run(command: FilesCommand) -> Outcome {
    match command {
        FilesCommand::Ls(args) => block_on(list::list(&args))?,
        FilesCommand::Put(args) => block_on(put::put(&args))?,
        FilesCommand::Get(args) => block_on(get::get(&args))?,
        FilesCommand::Rm(args) => block_on(change::remove(&args))?,
        FilesCommand::Mkdir(args) => block_on(change::make(&args))?,
        FilesCommand::Mv(args) => block_on(change::rename(&args))?,
        FilesCommand::Share(args) => block_on(share::make(&args))?,
        FilesCommand::Shares(args) => block_on(share::list(&args))?,
        FilesCommand::Unshare(args) => block_on(share::revoke(&args))?,
    }
    Ok(Code::Ok)
}
