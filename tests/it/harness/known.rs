//! A gateway that knows of containers which no compute runs: rows in its database, as compute's events leave them.

use edd_events::database::Database;
use edd_servers::nats::Nats;
use rustix::process::Signal;

use super::edd::{Builder, Edd};
use super::tenant::until;

/// A gateway to be started whose database `fill` has filled. Its table `containers` is empty before.
pub async fn knowing(nats: &Nats, fill: impl AsyncFnOnce(&Database)) -> Builder {
    let builder = Edd::gateway("routes: [{host: other.test, redirect: {to: 'http://elsewhere.test'}}]");
    let builder = builder.env("NATS_URL", &nats.url()).env("AUTH_SERVICE_URL", "http://127.0.0.1:9");
    let builder = builder.env("SERVICE_API_KEY", "a key that services share");
    let file = builder.path("data/gateway.db");
    // It makes its tables; who knows how they look writes the rows.
    let mut edd = builder.clone().start().await;
    until("the gateway's tables", async || {
        let database = Database::attach_file(&file).await.map_err(|error| error.to_string())?;
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM containers").fetch_one(database.reader()).await;
        database.close().await;
        count.map(drop).map_err(|error| error.to_string())
    })
    .await;
    edd.signal(Signal::TERM);
    edd.wait_exit().await;
    let database = Database::attach_file(&file).await.expect("the gateway's database");
    fill(&database).await;
    database.close().await;
    builder
}
