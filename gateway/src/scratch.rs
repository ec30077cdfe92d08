//! Databases of both kinds for tests: what holds on one must hold on the other.

use edd_events::database::{Database, Kind, Step};
use edd_servers::postgres::Postgres;

/// Makes two tests of each function that is named: `name::sqlite` and `name::postgres`.
macro_rules! on_each_database {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use edd_events::database::Kind;

            #[tokio::test]
            async fn sqlite() {
                super::$name(Kind::Sqlite).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$name(Kind::Postgres).await;
            }
        }
    )+};
}
pub(crate) use on_each_database;

/// An empty database of one kind, and a folder that goes with it when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Goes when it is dropped, with the file in it.
    _folder: tempfile::TempDir,
    url: String,
}

impl Scratch {
    pub(crate) fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}?mode=rwc", folder.path().join("service.db").display()),
            Kind::Postgres => Postgres::shared().database(),
        };
        Self { _folder: folder, url }
    }

    /// A handle of its own, as another process has one.
    pub(crate) async fn open(&self, steps: &[Step]) -> Database {
        Database::open(&self.url, steps).await.expect("a database")
    }
}
