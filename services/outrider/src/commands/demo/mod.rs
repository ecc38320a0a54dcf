//! `outrider demo`: shows the path of an event in one process, with nothing installed. Ends by
//! itself. Succeeds only if every event arrives with a valid signature.

mod client;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail};
use outrider_model::SigningSecret;
use outrider_store::Store;
use serde_json::json;

use self::client::Client;
use super::bootstrap;
use crate::{
    config::{Config, Sources},
    receiver::Receiver,
    roles::{self, Role, Roles},
    stdout, telemetry,
};

/// Everything must arrive within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// Number of events published in each way.
const EVENTS: u32 = 3;

/// Runs the demonstration.
pub async fn run() -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let config = config(directory.path())?;
    let telemetry = telemetry::start(&config)?;
    let path = directory.path().display();
    stdout::line(format_args!("Outrider demo: SQLite and the embedded queue, in {path}"))?;

    roles::create_master_key(&config.secrets)?;
    let store = Store::connect(&roles::store_options(&config)?).await?;
    store.migrate_up().await?;
    let first = bootstrap::first(&store, "Demo", "Demo").await?;
    store.close().await;

    let process = roles::start(config, Roles::new(&[Role::All])).await?;
    let address = process.public.context("the gateway listens")?;
    stdout::line(format_args!("gateway       http://{address} (gRPC and REST)"))?;
    stdout::line(format_args!("project       {}", first.project_id))?;
    let client = Client::new(address, first.project_id, first.token);
    let outcome = deliver(&client).await;
    process.stop().await;
    telemetry.stop().await;
    outcome
}

/// In memory as far as possible, and with loopback permitted, because the receiver is on this
/// machine.
fn config(directory: &std::path::Path) -> Result<Config> {
    let path = |name: &str| directory.join(name).display().to_string();
    let flags = vec![
        format!("database.url=sqlite://{}", path("outrider.db")),
        format!("secrets.master_key_file={}", path("master.key")),
        "gateway.listen=127.0.0.1:0".to_owned(),
        "operations.listen=".to_owned(),
        "egress.allow_loopback=true".to_owned(),
        "log.level=error".to_owned(),
    ];
    Ok(Sources { flags, ..Sources::default() }.load()?)
}

async fn deliver(client: &Client) -> Result<()> {
    let mut receiver = Receiver::start(0, http::StatusCode::NO_CONTENT).await?;
    let url = format!("http://{}/webhooks", receiver.address);
    let created = client
        .post("endpoints", &json!({"http": {"url": url}, "description": "demo receiver"}))
        .await?;
    let endpoint =
        created["endpoint"]["endpoint_id"].as_str().context("the endpoint has an id")?.to_owned();
    let secret = created["secret"].as_str().context("the endpoint has a secret")?;
    receiver.expect(SigningSecret::parse(secret)?);
    stdout::line(format_args!("endpoint      {endpoint} -> {url}"))?;
    client
        .post("subscriptions", &json!({"endpoint_id": endpoint, "event_types": ["demo.*"]}))
        .await?;

    let mut expected = BTreeSet::new();
    for number in 1..=EVENTS {
        let event =
            json!({"event_type": "demo.rest", "data": {"number": number, "published_by": "REST"}});
        let published = client.post("events", &event).await?;
        expected.insert(published["event_id"].as_str().context("the event has an id")?.to_owned());
        expected.insert(
            client
                .publish_grpc("demo.grpc", json!({"number": number, "published_by": "gRPC"}))
                .await?,
        );
    }
    stdout::line(format_args!("published     {} events by REST and gRPC\n", expected.len()))?;

    let total = expected.len();
    let all = async {
        while !expected.is_empty() {
            let arrived = receiver.next().await.context("the receiver ended")?;
            stdout::line(format_args!(
                "delivered     {} {} {}  signature {}",
                arrived.id,
                arrived.body,
                arrived.latency(),
                arrived.verdict()
            ))?;
            if !arrived.is_verified() {
                bail!("the signature of {} does not verify", arrived.id);
            }
            expected.remove(&arrived.id);
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(outcome) => outcome?,
        Err(_) => bail!(
            "{} of {total} events did not arrive within {} s",
            expected.len(),
            PATIENCE.as_secs()
        ),
    }
    stdout::line(format_args!("\nAll {total} events arrived, signed by Standard Webhooks."))
}
