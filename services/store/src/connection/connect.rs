//! Opening a database.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sea_orm::{SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::{
    ConnectOptions, Connection as _, PgPool, SqliteConnection, SqlitePool,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    backend::Backend,
    clock::Clock,
    failure::{Failure, FailureKind},
    measure,
    options::StoreOptions,
    patience,
    probes::Refusals,
    session::Connector,
    sessions::Sessions,
    store::{Inner, LedgerPool, Store},
    target::Target,
    turns::CallerTurns,
};

/// A connection that reads SQLite's file is closed after this time, with its cached pages and its
/// statements, so that memory follows use.
const READER_LIFETIME: Duration = Duration::from_secs(20);
/// How much of the file such a connection caches, in SQLite's terms: 512 KiB, a quarter of the
/// default. The system caches the file too.
const READER_CACHE: &str = "-512";
/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Connects. Leaves the schema as it is: see [`Store::migrate_up`].
    pub async fn connect(options: &StoreOptions) -> Result<Self, Failure> {
        let (backend, read, write, ledger_pool) = match Backend::of(&options.database.url) {
            Some(Backend::Postgres) => {
                let connector = Connector::new(&target(options)?, options).await?;
                let pool = connect_postgres(options, &connector).await?;
                let sessions = Sessions::new(connector, options);
                let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
                (Backend::Postgres, pool.clone(), pool, LedgerPool::Postgres(sessions))
            }
            Some(Backend::Sqlite) => {
                let (read, write) = connect_sqlite(options).await?;
                let ledger_pool = LedgerPool::Sqlite { read: read.clone(), write: write.clone() };
                let [read, write] = [read, write].map(SqlxSqliteConnector::from_sqlx_sqlite_pool);
                (Backend::Sqlite, read, write, ledger_pool)
            }
            None => return Err(Failure::parameter("must begin with postgres:// or sqlite:")),
        };
        let patience = patience::of(backend, options);
        let clock = patience::within(patience, Clock::measured(read.clone())).await;
        let clock = clock.map_err(|error| {
            Failure::new(FailureKind::Unreachable, "its clock was not read", error.to_string())
        })?;
        let most = options.database.max_connections
            + if backend == Backend::Postgres { options.database.ledger_connections } else { 1 };
        let caller_turns =
            CallerTurns::new(pool_size(backend, options), options.database.acquire_timeout);
        let inner = Arc::new(Inner {
            backend,
            read,
            write,
            ledger_pool,
            caller_turns,
            clock,
            master_keys: options.master_keys.clone(),
            patience,
            refusals: Refusals::default(),
            ledger: OnceLock::new(),
        });
        measure::expose_pools(&inner, most);
        Ok(Self { inner })
    }
}

fn target(options: &StoreOptions) -> Result<Target, Failure> {
    let target = Target::parse(&options.database.url)
        .and_then(|target| target.with_environment(|name| std::env::var(name).ok()));
    target.map_err(Failure::parameter)
}

/// The connections for configuration and queries.
async fn connect_postgres(
    options: &StoreOptions,
    connector: &Connector,
) -> Result<PgPool, Failure> {
    let (writes, acquire_timeout) = (!options.read_only, options.database.acquire_timeout);
    let (for_acquire, for_connect) = (connector.clone(), connector.clone());
    let pool = PgPoolOptions::new()
        .max_connections(pool_size(Backend::Postgres, options))
        .acquire_timeout(options.database.acquire_timeout)
        // `after_release` closes old connections.
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let connector = for_acquire.clone();
            Box::pin(async move {
                if meta.idle_for > patience::TESTED_AFTER_IDLE
                    && patience::test(connection, acquire_timeout).await.is_err()
                {
                    // The connection is replaced here. If it were left to the pool, the pool would
                    // wait for a lost host to confirm the close.
                    *connection = connector.open_for_queries().await?;
                }
                Ok(true)
            })
        })
        .after_release(move |connection, meta| {
            Box::pin(patience::test_returned(connection, meta.age, writes))
        })
        .after_connect(move |connection, _| {
            let connector = for_connect.clone();
            Box::pin(async move { connector.adopt(connection).await })
        })
        .connect_with(connector.hosts().current().clone());
    let pool =
        pool.await.map_err(|error| Failure::of("no connection of the pool was opened", &error))?;
    connector.hosts().lead(&pool);
    Ok(pool)
}

async fn connect_sqlite(options: &StoreOptions) -> Result<(SqlitePool, SqlitePool), Failure> {
    let connect = SqliteConnectOptions::from_str(&options.database.url)
        .map_err(|_| Failure::parameter("is not a SQLite URL"))?
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(false)
        .disable_statement_logging();
    let connect = if options.read_only {
        connect.create_if_missing(false).read_only(true)
    } else {
        connect.create_if_missing(true).journal_mode(SqliteJournalMode::Wal)
    };
    let pool = |size: u32, connect: SqliteConnectOptions, lifetime: Option<Duration>| {
        SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(size)
            .acquire_timeout(options.database.acquire_timeout)
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(is_outside_transaction(connection)))
            .idle_timeout(None)
            .max_lifetime(lifetime)
            .connect_with(connect)
    };
    let write = pool(1, connect.clone(), None).await.map_err(|error| cannot_open(&error))?;
    let read = match pool_size(Backend::Sqlite, options) {
        1 => write.clone(),
        size => {
            // The file exists by now. If it is removed later, an empty one must not replace it.
            let connect = connect.create_if_missing(false).pragma("cache_size", READER_CACHE);
            pool(size, connect, Some(READER_LIFETIME)).await.map_err(|error| cannot_open(&error))?
        }
    };
    Ok((read, write))
}

/// Whether a returned connection is outside a transaction. If not, the pool closes it and opens
/// another. SQLite may end a transaction itself when its disk is full or fails. The driver would
/// still count the connection as inside one, and never begin another on it (sqlx 0.9).
async fn is_outside_transaction(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // A dropped transaction is being rolled back. It has been once this is answered.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// The number of connections for queries.
fn pool_size(backend: Backend, options: &StoreOptions) -> u32 {
    // An in-memory SQLite database lives in its one connection, and a process that only reads the
    // file needs no second one.
    match backend {
        Backend::Sqlite if is_in_memory(&options.database.url) || options.read_only => 1,
        _ => options.database.max_connections.max(1),
    }
}

fn is_in_memory(url: &str) -> bool {
    matches!(url, "sqlite::memory:" | "sqlite://:memory:")
}

fn cannot_open(error: &sqlx::Error) -> Failure {
    let failure = Failure::of("database.url: the SQLite database was not opened", error);
    match error {
        sqlx::Error::PoolTimedOut => failure.with_advice(
            "another process has the file: does `outrider serve` or `outrider dev` run on it?",
        ),
        _ => failure,
    }
}
