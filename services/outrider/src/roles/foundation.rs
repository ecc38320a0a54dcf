//! Builds what roles use: the store, the directory, the queue, and channels to other processes.

use std::{io::Write as _, path::Path, sync::Arc};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use outrider_queue::{EmbeddedQueue, Options, Queue, RedisQueue, RedisTls};
use outrider_rpc::{InternalToken, RoleChannel, Streams, Tls};
use outrider_store::{
    Backend, Directory, DirectoryOptions, FailureKind, MasterKeys, Store, StoreOptions, Work,
};
use outrider_telemetry::essential;
use ring::rand::{SecureRandom, SystemRandom};
use tokio_util::sync::CancellationToken;

use super::role::{Role, Roles};
use crate::config::{self, Config};

/// Returns the options of the store. Reads the master key.
pub fn store_options(config: &Config) -> Result<StoreOptions> {
    Ok(options_with(config, master_keys(&config.secrets)?))
}

/// Returns the options of the store for commands that need the master key only if something is
/// encrypted with it. There is no key if none is configured and its file does not exist.
pub fn options_without_key(config: &Config) -> Result<StoreOptions> {
    if !config.secrets.master_key.is_empty() || Path::new(&config.secrets.master_key_file).exists()
    {
        return store_options(config);
    }
    Ok(options_with(config, MasterKeys::none()))
}

/// Returns the options of the store for commands that create a database. By default, SQLite's file
/// is in the directory of the key, which must exist.
pub fn first_options(config: &Config) -> Result<StoreOptions> {
    let options = options_without_key(config)?;
    if options.master_keys.is_none() && Backend::of(&options.database.url) == Some(Backend::Sqlite)
    {
        make_directory_of_key(Path::new(&config.secrets.master_key_file))?;
    }
    Ok(options)
}

/// Returns the options of the store with these keys.
pub fn options_with(config: &Config, master_keys: MasterKeys) -> StoreOptions {
    StoreOptions { database: config.database.clone(), read_only: false, master_keys }
}

fn master_keys(secrets: &config::Secrets) -> Result<MasterKeys> {
    if !secrets.master_key.is_empty() {
        return MasterKeys::parse(secrets.master_key.trim()).context("secrets.master_key");
    }
    let path = &secrets.master_key_file;
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "secrets.master_key_file: cannot read {path}; `outrider bootstrap` makes it, or \
            set secrets.master_key"
        )
    })?;
    MasterKeys::parse(text.trim()).with_context(|| format!("secrets.master_key_file: {path}"))
}

/// Returns the token between roles, if one is configured.
pub fn internal_token(internal: &config::Internal) -> Result<Option<InternalToken>> {
    match internal.token.trim() {
        "" => Ok(None),
        text => InternalToken::new(text).map(Some).context("internal.token"),
    }
}

/// Creates the file of the master key, readable by its owner only, unless a key is configured or
/// the file exists. Returns whether it created the file.
///
/// The file appears under its name with its whole content. If several processes do this at once,
/// one creates the file, and none reads a part of it.
pub fn create_master_key(secrets: &config::Secrets) -> Result<bool> {
    let path = Path::new(&secrets.master_key_file);
    if !secrets.master_key.is_empty() || path.exists() {
        return Ok(false);
    }
    let directory = make_directory_of_key(path)?;
    let cannot = || format!("secrets.master_key_file: cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(".master-key-")
        .tempfile_in(directory)
        .with_context(cannot)?;
    writeln!(file, "{}", new_master_key()?).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.error).with_context(cannot),
    }
    // The name must be durable too before anything is encrypted.
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(cannot)?;
    Ok(true)
}

fn make_directory_of_key(path: &Path) -> Result<&Path> {
    let directory = match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Returns a key with a random id, so that keys created elsewhere are never mistaken for it.
fn new_master_key() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut key, mut id) = ([0_u8; 32], [0_u8; 6]);
    let random = SystemRandom::new();
    random
        .fill(&mut key)
        .and_then(|()| random.fill(&mut id))
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let id: String = id.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
    Ok(format!("k{id}:{}", STANDARD.encode(key)))
}

/// What each role does in the database besides reading the configuration.
const WORKS: [(Role, Work); 4] = [
    (Role::Admin, Work::Configuration),
    (Role::Worker, Work::Jobs),
    (Role::Dispatch, Work::Deliveries),
    (Role::Ingest, Work::Intake),
];

/// Connects to the database. Migrates SQLite, because no other process can use it. The schema of
/// PostgreSQL must be current, and the database must permit everything that the roles need.
pub async fn store(config: &Config, roles: &Roles) -> Result<Store> {
    let store = Store::connect(&store_options(config)?).await?;
    let works: Vec<Work> =
        WORKS.iter().filter(|(role, _)| roles.has(*role)).map(|(_, work)| *work).collect();
    if store.backend() == Backend::Sqlite {
        store.migrate_up().await.context("the schema cannot be brought up to date")?;
        store.seal().await?;
    } else if let Err(failure) = store.current().await {
        if failure.kind == FailureKind::Refused {
            // Reports everything that is refused, not only the look at the schema.
            store.begin(&works).await?;
        }
        return Err(failure.into());
    }
    store.begin(&works).await?;
    store.check_master_keys().await?;
    Ok(store)
}

/// Returns the directory, which is kept fresh until `shutdown` and reads announced changes at once.
/// It knows the ids of all API keys if this process checks any.
pub fn directory(
    options: &DirectoryOptions,
    store: &Store,
    queue: Option<&Arc<dyn Queue>>,
    keys: bool,
    shutdown: &CancellationToken,
) -> Directory {
    let key_ids = if keys { options.key_ids } else { 0 };
    let directory = Directory::new(store.clone(), DirectoryOptions { key_ids, ..options.clone() });
    spawn_until(shutdown, {
        let directory = directory.clone();
        async move { directory.run().await }
    });
    spawn_until(shutdown, {
        let store = store.clone();
        async move { store.watch().await }
    });
    spawn_until(shutdown, {
        let clock = store.clock().clone();
        async move { clock.run().await }
    });
    if let Some(queue) = queue.cloned() {
        let directory = directory.clone();
        spawn_until(shutdown, async move { directory.follow(|| queue.change_announced()).await });
    }
    directory
}

fn spawn_until(shutdown: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.clone();
    tokio::spawn(essential("directory", async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = task => {}
        }
    }));
}

/// Returns the configured queue.
pub async fn queue(options: &Options) -> Result<Arc<dyn Queue>> {
    if options.is_embedded() {
        return Ok(Arc::new(EmbeddedQueue::new(options)));
    }
    let queue = RedisQueue::connect(options.clone(), &redis_tls(options)?).await;
    Ok(Arc::new(queue.context("queue.url")?))
}

fn redis_tls(options: &Options) -> Result<RedisTls> {
    let read = |key: &str, path: &str| match path {
        "" => Ok(None),
        path => std::fs::read(path)
            .map(Some)
            .with_context(|| format!("queue.{key}: cannot read {path}")),
    };
    Ok(RedisTls {
        authorities: read("tls_ca_file", &options.tls_ca_file)?,
        identity: read("tls_certificate_file", &options.tls_certificate_file)?
            .zip(read("tls_private_key_file", &options.tls_private_key_file)?),
    })
}

/// Returns a channel to a role in another process, with mutual TLS if it is configured.
pub fn channel(key: &'static str, url: &str, tls: Option<&Arc<Tls>>) -> Result<RoleChannel> {
    outrider_rpc::channel::channel(url, tls).with_context(|| format!("{key} = {url}"))
}

/// Returns channels to a role in another process for the streams of clients.
pub fn streams(key: &'static str, url: &str, tls: Option<&Arc<Tls>>) -> Result<Streams> {
    Streams::new(url, tls).with_context(|| format!("{key} = {url}"))
}
