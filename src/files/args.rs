//! The verbs and their flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::place::{Anywhere, Place};
use crate::secret::Secret;

#[derive(Debug, Subcommand)]
pub enum FilesCommand {
    /// List namespaces, or what is in one.
    Ls(LsArgs),
    /// Send files. What breaks off goes on where it was when the same is run again.
    Put(PutArgs),
    /// Fetch files. What breaks off goes on where it was when the same is run again.
    Get(GetArgs),
    /// Delete files, folders and namespaces.
    Rm(RmArgs),
    /// Make a folder, or a namespace.
    Mkdir(MkdirArgs),
    /// Call a file or a folder otherwise, or move it.
    Mv(MvArgs),
    /// Make a link to a file or a folder, for whoever has it.
    Share(ShareArgs),
    /// List the links that you made.
    Shares(SharesArgs),
    /// Take a link back.
    Unshare(UnshareArgs),
}

/// Where the share is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Where the installation is: https://cloud.example.org.
    #[arg(long, value_name = "URL", env = "EDD_URL")]
    pub url: String,
    #[arg(long, value_name = "TOKEN", env = "EDD_TOKEN", hide_env_values = true)]
    /// An API token, or an access token. Without one, what is public is there.
    pub token: Option<Secret>,
    /// File with the token.
    #[arg(long, value_name = "FILE", env = "EDD_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LsArgs {
    /// `namespace`, or `namespace/folder`; nothing: the namespaces.
    pub place: Option<Anywhere>,
    /// The files of all folders below.
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct PutArgs {
    /// A file, a folder with -r; `-` is stdin.
    pub source: PathBuf,
    /// `namespace/path`; one that ends with `/`, or a namespace alone, keeps the name.
    pub target: Anywhere,
    /// A folder with all that is in it. Links are left out.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace what is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Send a file of more than 4 MiB in pieces of so many MiB: what is lost when a server is killed.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub piece_mib: u64,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// `namespace/path`; with -r also a namespace.
    pub source: Anywhere,
    /// Where to, `-` is stdout [default: here, by the same name].
    pub target: Option<PathBuf>,
    /// A folder with all that is in it.
    #[arg(short, long)]
    pub recursive: bool,
    /// Replace what is there.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// `namespace/path`; with -r also a namespace.
    #[arg(required = true)]
    pub places: Vec<Anywhere>,
    /// With all that is in it.
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct MkdirArgs {
    /// `namespace/folder`; a name alone makes a namespace.
    pub place: Anywhere,
    /// Who may read a namespace that is made.
    #[arg(long, default_value = "private")]
    pub visibility: VisibilityArg,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Who reads a namespace besides its owner.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum VisibilityArg {
    /// Nobody.
    Private,
    /// Whoever is signed in.
    Internal,
    /// Anybody.
    Public,
}

impl VisibilityArg {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
}

#[derive(Debug, Args)]
pub struct MvArgs {
    pub from: Place,
    /// One that ends with `/` keeps the name.
    pub to: Anywhere,
    /// Replace a file that is there.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ShareArgs {
    /// `namespace/path`, or a namespace.
    pub place: Anywhere,
    /// How long the link is good for, such as 12h or 7days [default: until it is taken back].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub expires_in: Option<Duration>,
    /// How many downloads it is good for.
    #[arg(long, value_name = "COUNT")]
    pub downloads: Option<u32>,
    /// File with a password that opens it.
    #[arg(long, value_name = "FILE", env = "EDD_SHARE_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct SharesArgs {
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct UnshareArgs {
    /// The link's number, as `edd files shares` has it.
    pub id: u64,
    #[command(flatten)]
    pub server: ServerArgs,
}
