//! `outrider dev`: runs the embedded stack on a data directory, for development.

mod data;
mod words;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use outrider_store::Store;

use self::data::{Data, Known};
use super::bootstrap;
use crate::{
    client::Failure,
    config::{Config, Sources},
    roles::{self, Role, Roles},
    shutdown,
    stderr::note,
    stdout, telemetry,
};

/// The options of the server.
#[derive(Debug, Args)]
pub struct Dev {
    /// The directory with the database, the master key and the API key, which later starts use
    /// again.
    #[arg(long, default_value = "outrider-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Removes what an earlier `outrider dev` created in that directory, and starts over.
    #[arg(long)]
    pub reset: bool,
    /// Address and port for gRPC and REST. Port 0 selects a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// A key of the configuration, such as `log.level=info`; can be repeated. Files and variables
    /// are not read.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Runs until SIGTERM, SIGINT or SIGHUP, and then shuts down in order.
pub async fn run(options: Dev) -> Result<(), Failure> {
    refuse_what_is_kept(&options.set)?;
    Ok(develop(options).await?)
}

/// Keys that `outrider dev` sets itself, and what to use instead.
const KEPT: [(&str, &str); 7] = [
    ("database.url", "it is kept in --data"),
    ("database.url_file", "it is kept in --data"),
    ("secrets.master_key", "it is kept in --data"),
    ("secrets.master_key_file", "it is kept in --data"),
    ("queue.url", "the queue is in the memory of this process"),
    ("queue.url_file", "the queue is in the memory of this process"),
    ("gateway.listen", "give --listen"),
];

fn refuse_what_is_kept(set: &[String]) -> Result<(), Failure> {
    for flag in set {
        let key = flag.split_once('=').map_or(flag.as_str(), |(key, _)| key);
        if let Some((_, instead)) = KEPT.iter().find(|(kept, _)| *kept == key) {
            return Err(Failure::Usage(format!(
                "--set {key}: has no effect with outrider dev: {instead}"
            )));
        }
    }
    Ok(())
}

async fn develop(options: Dev) -> Result<()> {
    let data = Data::open(&options.data)?;
    if options.reset {
        data.reset()?;
    }
    let config = config(&options, &data)?;
    let telemetry = telemetry::start(&config)?;
    let known = match data.known()? {
        Some(known) => known,
        None => prepare(&data, &config).await?,
    };
    let process = roles::start(config, Roles::new(&[Role::All])).await?;
    let address = process.public.context("the gateway listens")?;
    if !address.ip().is_loopback() {
        note!(
            "outrider: {address} is not loopback: whoever reaches it and has a key can make this \
                machine call its own services"
        );
    }
    stdout::write(&words::greeting(address, &known, &options.data))?;
    shutdown::requested_on_terminal().await?;
    process.stop().await;
    telemetry.stop().await;
    Ok(())
}

/// Data is always in the data directory, and receivers on this machine are permitted. Other keys
/// can be set.
fn config(options: &Dev, data: &Data) -> Result<Config> {
    let may_be_set = [
        "egress.allow_loopback=true",
        "gateway.reflection=true",
        "operations.listen=",
        "log.level=warn",
    ];
    let is_set = |default: &&str| {
        let key = default.split('=').next();
        options.set.iter().any(|flag| flag.split('=').next() == key)
    };
    let mut flags: Vec<_> =
        may_be_set.into_iter().filter(|default| !is_set(default)).map(str::to_owned).collect();
    flags.extend(options.set.iter().cloned());
    flags.extend([
        format!("database.url=sqlite://{}", data.path(data::DATABASE).display()),
        "secrets.master_key=".to_owned(),
        format!("secrets.master_key_file={}", data.path(data::MASTER_KEY).display()),
        "queue.url=embedded".to_owned(),
        format!("gateway.listen={}", options.listen),
    ]);
    Ok(Sources { flags, ..Sources::default() }.load()?)
}

/// Prepares the first start: master key, schema, organization, project and key.
async fn prepare(data: &Data, config: &Config) -> Result<Known> {
    data.begin()?;
    roles::create_master_key(&config.secrets)?;
    let store = Store::connect(&roles::store_options(config)?).await?;
    store.migrate_up().await?;
    let first = bootstrap::first(&store, "Dev", "Dev").await?;
    store.close().await;
    let known = Known {
        organization_id: first.organization_id,
        project_id: first.project_id,
        api_key_id: first.api_key_id,
        token: first.token,
    };
    data.remember(&known)?;
    Ok(known)
}
