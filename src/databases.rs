//! Where the services' databases are: a URL for PostgreSQL, a file in the data directory for SQLite.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use edd_events::database::{Database, DatabaseError, Step};

use crate::exit::Failure;
use crate::secret::{self, Secret};

/// A service that has a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceName {
    Auth,
    Sfs,
    Compute,
    Gateway,
}

impl ServiceName {
    pub const ALL: [Self; 4] = [Self::Auth, Self::Sfs, Self::Compute, Self::Gateway];
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "auth",
            Self::Sfs => "sfs",
            Self::Compute => "compute",
            Self::Gateway => "gateway",
        })
    }
}

/// The databases as they are named. Each URL may instead stand in a file, since it may hold a password.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct DatabaseArgs {
    /// Databases without a URL are here: auth.db, sfs.db, compute.db, gateway.db.
    #[arg(long, value_name = "DIR", env = "EDD_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    urls: DatabaseUrls,
}

/// The databases that are not files in the data directory.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Databases")]
pub struct DatabaseUrls {
    #[arg(long, value_name = "URL", env = "AUTH_DATABASE_URL", hide_env_values = true)]
    auth_database_url: Option<Secret>,
    #[arg(long, value_name = "FILE", env = "AUTH_DATABASE_URL_FILE")]
    auth_database_url_file: Option<PathBuf>,
    #[arg(long, value_name = "URL", env = "SFS_DATABASE_URL", hide_env_values = true)]
    sfs_database_url: Option<Secret>,
    #[arg(long, value_name = "FILE", env = "SFS_DATABASE_URL_FILE")]
    sfs_database_url_file: Option<PathBuf>,
    #[arg(long, value_name = "URL", env = "COMPUTE_DATABASE_URL", hide_env_values = true)]
    compute_database_url: Option<Secret>,
    #[arg(long, value_name = "FILE", env = "COMPUTE_DATABASE_URL_FILE")]
    compute_database_url_file: Option<PathBuf>,
    #[arg(long, value_name = "URL", env = "GATEWAY_DATABASE_URL", hide_env_values = true)]
    gateway_database_url: Option<Secret>,
    #[arg(long, value_name = "FILE", env = "GATEWAY_DATABASE_URL_FILE")]
    gateway_database_url_file: Option<PathBuf>,
    /// The one database, where one service alone is meant and has no URL of its own.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<Secret>,
    #[arg(long, value_name = "FILE", env = "DATABASE_URL_FILE")]
    database_url_file: Option<PathBuf>,
}

/// Where one database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    File(PathBuf),
    Url(Secret),
}

impl DatabaseArgs {
    /// The database of `service`, which is the only one that is meant.
    pub fn only(&self, service: ServiceName) -> Result<Location, Failure> {
        self.urls.only(service, &self.data_dir)
    }

    /// Every database that a URL names, or that is in the data directory.
    pub fn all(&self) -> Result<Vec<(ServiceName, Location)>, Failure> {
        let mut found = Vec::new();
        for service in ServiceName::ALL {
            let location = self.urls.of(service, &self.data_dir)?;
            if !matches!(&location, Location::File(file) if !file.exists()) {
                found.push((service, location));
            }
        }
        if found.is_empty() {
            let message = format!("there is no database in {}", self.data_dir.display());
            return Err(Failure::unavailable(format!("{message}\n{HINT}")));
        }
        Ok(found)
    }
}

impl DatabaseUrls {
    /// The database of `service`, one of several.
    pub fn of(&self, service: ServiceName, data_dir: &Path) -> Result<Location, Failure> {
        let file = || Location::File(data_dir.join(format!("{service}.db")));
        Ok(self.url(service)?.map_or_else(file, Location::Url))
    }

    /// The database of `service`, which is the only one that is meant.
    pub fn only(&self, service: ServiceName, data_dir: &Path) -> Result<Location, Failure> {
        let common = secret::resolve("DATABASE_URL", self.database_url.clone(), self.database_url_file.clone())?;
        match (self.of(service, data_dir)?, common) {
            (Location::File(_), Some(url)) => Ok(Location::Url(url)),
            (own, _) => Ok(own),
        }
    }

    fn url(&self, service: ServiceName) -> Result<Option<Secret>, Failure> {
        let (name, url, file) = match service {
            ServiceName::Auth => ("AUTH_DATABASE_URL", &self.auth_database_url, &self.auth_database_url_file),
            ServiceName::Sfs => ("SFS_DATABASE_URL", &self.sfs_database_url, &self.sfs_database_url_file),
            ServiceName::Compute => {
                ("COMPUTE_DATABASE_URL", &self.compute_database_url, &self.compute_database_url_file)
            }
            ServiceName::Gateway => {
                ("GATEWAY_DATABASE_URL", &self.gateway_database_url, &self.gateway_database_url_file)
            }
        };
        secret::resolve(name, url.clone(), file.clone())
    }
}

const HINT: &str =
    "hint: say where it is with --data-dir (EDD_DATA_DIR), or name it with AUTH_DATABASE_URL and its like";

impl Location {
    /// Opens the database of `service`, makes it if it is a file that is not there, and brings it up to date.
    pub async fn open(&self, service: ServiceName, steps: &[Step]) -> Result<Database, Failure> {
        let opened = match self {
            Self::File(file) => Database::open_file(file, steps).await,
            Self::Url(url) => Database::open(url.reveal(), steps).await,
        };
        opened.map_err(|error| match error {
            DatabaseError::Url(_) => Failure::config(format!("the database of {service}: {error}")),
            error => away(service)(error),
        })
    }

    /// Opens the database of `service` as it is. One that is not there is not made: looking changes nothing.
    pub async fn attach(&self, service: ServiceName) -> Result<Database, Failure> {
        let attached = match self {
            Self::File(file) if !file.exists() => {
                let message = format!("{service} has no database: {} does not exist", file.display());
                return Err(Failure::unavailable(format!("{message}\n{HINT}")));
            }
            Self::File(file) => Database::attach_file(file).await,
            Self::Url(url) => Database::attach(url.reveal()).await,
        };
        attached.map_err(|error| match error {
            DatabaseError::Url(_) => Failure::config(format!("the database of {service}: {error}")),
            DatabaseError::NotOurs(_) => Failure::unavailable(format!(
                "the database of {service}: {error}\nhint: start the service once, or name another database"
            )),
            error => away(service)(error),
        })
    }
}

/// What a failed query ends the command with.
pub fn away<E: fmt::Display>(service: ServiceName) -> impl Fn(E) -> Failure {
    move |error| Failure::unavailable(format!("the database of {service}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        databases: DatabaseArgs,
    }

    fn parse(arguments: &[&str]) -> DatabaseArgs {
        Line::parse_from(std::iter::once("edd").chain(arguments.iter().copied())).databases
    }

    fn url(text: &str) -> Location {
        Location::Url(text.to_owned().into())
    }

    #[test]
    fn a_url_wins_over_the_file_and_the_own_one_over_the_common_one() {
        let common = "--database-url=postgres://x/one";
        let named = ["--sfs-database-url=postgres://x/sfs", common];
        assert_eq!(parse(&named).only(ServiceName::Sfs).expect("a place"), url("postgres://x/sfs"));
        assert_eq!(parse(&named).only(ServiceName::Auth).expect("a place"), url("postgres://x/one"));
        let file = parse(&["--data-dir=/srv/edd"]).only(ServiceName::Compute).expect("a place");
        assert_eq!(file, Location::File("/srv/edd/compute.db".into()));
    }

    #[test]
    fn all_are_those_that_are_there() {
        let dir = std::env::temp_dir().join(format!("edd-databases-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let data_dir = format!("--data-dir={}", dir.display());
        let nothing = parse(&[&data_dir, "--database-url=postgres://x/one"]).all().expect_err("no database");
        assert_eq!(nothing.code, crate::exit::Code::Unavailable);
        std::fs::write(dir.join("gateway.db"), "").expect("a file");
        std::fs::write(dir.join("url"), "postgres://x/auth\n").expect("a file");
        let secret = format!("--auth-database-url-file={}", dir.join("url").display());
        let found = parse(&[&data_dir, &secret]).all().expect("two of them");
        let gateway = Location::File(dir.join("gateway.db"));
        assert_eq!(found, [(ServiceName::Auth, url("postgres://x/auth")), (ServiceName::Gateway, gateway)]);
        let both = parse(&[&secret, "--auth-database-url=postgres://x/y"]).only(ServiceName::Auth);
        assert!(both.expect_err("one too many").to_string().contains("AUTH_DATABASE_URL_FILE"));
        std::fs::remove_dir_all(&dir).expect("our own directory");
    }
}
