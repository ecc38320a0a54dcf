//! The store: its connections, its schema, its clock.

use std::{
    collections::HashSet,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use outrider_migrations::Migrator;
use outrider_model::{Error, Reason, Result};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, SqlxPostgresConnector, SqlxSqliteConnector, Statement,
};
use sea_orm_migration::MigratorTrait;
use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool, SqliteConnection, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Clock, Ledger, MasterKeys, StoreOptions, error::unavailable, ledger, measure, patience, questions::Questions,
    sessions::Sessions, transaction,
};

/// A connection that was idle for longer is tested before it is used, so that a restart of the database is not a caller's error.
pub(crate) const TESTED_AFTER_IDLE: Duration = Duration::from_secs(1);
/// A connection that reads SQLite's file is closed after so long, and with it go its pages and its
/// statements: memory follows use.
const READER_LIFETIME: Duration = Duration::from_secs(20);
/// What it caches of the file, in SQLite's terms: 512 KiB, a quarter of the default. The system caches
/// the file too.
const READER_CACHE: &str = "-512";
/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// PostgreSQL 15 or later.
    Postgres,
    /// SQLite, in a file or in memory.
    Sqlite,
}

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// The step's name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// A cheap handle to the database.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    read: DatabaseConnection,
    write: DatabaseConnection,
    hot: Hot,
    questions: Questions,
    clock: Clock,
    master_keys: MasterKeys,
    patience: Duration,
    ledger: OnceLock<Arc<dyn Ledger>>,
}

/// The connections of the ledger. On PostgreSQL they are its own, so that no question waits for events nor events for questions, and
/// they plan otherwise.
pub(crate) enum Hot {
    Postgres(Sessions),
    Sqlite { read: SqlitePool, write: SqlitePool },
}

impl measure::Pools for Inner {
    fn pools(&self) -> Vec<(u32, usize)> {
        match &self.hot {
            Hot::Postgres(hot) => {
                let questions = self.read.get_postgres_connection_pool();
                vec![(questions.size(), questions.num_idle()), hot.count()]
            }
            Hot::Sqlite { read, write } => [read, write].map(|pool| (pool.size(), pool.num_idle())).into(),
        }
    }
}

impl Store {
    /// Connects. The schema is left as it is: see [`Store::migrate_up`]. Errors: `INVALID_FIELD` for a URL that is none,
    /// `UNAVAILABLE` when the database does not answer.
    pub async fn connect(options: &StoreOptions) -> Result<Self> {
        let (backend, read, write, hot) = match options.url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let connect = postgres_options(options)?;
                let pool = connect_postgres(options, connect.clone()).await?;
                let hot = Sessions::new(connect, options);
                let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
                (Backend::Postgres, pool.clone(), pool, Hot::Postgres(hot))
            }
            Some("sqlite") => {
                let (read, write) = connect_sqlite(options).await?;
                let hot = Hot::Sqlite { read: read.clone(), write: write.clone() };
                let [read, write] = [read, write].map(SqlxSqliteConnector::from_sqlx_sqlite_pool);
                (Backend::Sqlite, read, write, hot)
            }
            _ => return Err(Error::field("database.url", "must begin with postgres:// or sqlite:")),
        };
        let patience = patience::of(backend, options);
        let clock = patience::within(patience, Clock::measured(read.clone())).await?;
        let (master_keys, ledger) = (options.master_keys.clone(), OnceLock::new());
        let most = options.max_connections + if backend == Backend::Postgres { options.ledger_connections } else { 1 };
        let questions = Questions::new(pool_size(backend, options), options.acquire_timeout);
        let inner = Arc::new(Inner { backend, read, write, hot, questions, clock, master_keys, patience, ledger });
        measure::expose_pools(&inner, most);
        Ok(Self { inner })
    }

    /// Which database it is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.inner.backend
    }

    /// The database's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The hot path: the same for all handles of this store. To be called on a tokio runtime.
    #[must_use]
    pub fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::clone(self.inner.ledger.get_or_init(|| ledger::open(self)))
    }

    /// Brings the schema up to date, in one transaction. Processes that do so at once wait for each other.
    pub async fn migrate_up(&self) -> Result<()> {
        let transaction = self.begin_migration().await?;
        Migrator::up(&transaction, None).await.map_err(migration_failed)?;
        transaction.commit().await.map_err(unavailable)
    }

    /// Takes the last steps back, and their data with them.
    pub async fn migrate_down(&self, steps: u32) -> Result<()> {
        let transaction = self.begin_migration().await?;
        Migrator::down(&transaction, Some(steps)).await.map_err(migration_failed)?;
        transaction.commit().await.map_err(unavailable)
    }

    /// All steps that this version knows, oldest first. It changes nothing.
    pub async fn migration_status(&self) -> Result<Vec<MigrationState>> {
        let applied = self.applied_migrations().await?;
        let steps = Migrator::migrations();
        Ok(steps
            .iter()
            .map(|step| MigrationState { name: step.name().to_owned(), applied: applied.contains(step.name()) })
            .collect())
    }

    /// OK when the database answers and its schema has all steps that this version knows; one of a newer version is fine. Errors:
    /// `UNAVAILABLE`, `FAILED_PRECONDITION` when steps are missing.
    pub async fn ready(&self) -> Result<()> {
        let missing = self.within(self.migration_status()).await?.into_iter().filter(|step| !step.applied).count();
        if missing == 0 {
            return Ok(());
        }
        Err(Error::new(Reason::FailedPrecondition, format!("the database lacks {missing} migrations: run the migrate command")))
    }

    /// Closes all connections but those of the ledger, which end with its last handle; calls under way end first, in bounds.
    pub async fn close(&self) {
        for connection in [&self.inner.read, &self.inner.write] {
            let closed = async { connection.clone().close().await.map_err(unavailable) };
            if let Err(error) = self.within(closed).await {
                tracing::debug!(%error, "the database was not closed well");
            }
        }
    }

    /// For reads. On SQLite in a file these are many connections.
    pub(crate) fn read(&self) -> &DatabaseConnection {
        &self.inner.read
    }

    /// For writes. On SQLite this is one connection: who holds it must not ask for another, and does not see "database is
    /// locked".
    pub(crate) fn write(&self) -> &DatabaseConnection {
        &self.inner.write
    }

    /// For reads in statements of PostgreSQL's own.
    pub(crate) fn postgres_pool(&self) -> &sqlx::PgPool {
        self.read().get_postgres_connection_pool()
    }

    /// For reads in statements of SQLite's own.
    pub(crate) fn sqlite_pool(&self) -> &sqlx::SqlitePool {
        self.read().get_sqlite_connection_pool()
    }

    /// How long work may take that no request waits for.
    pub(crate) fn patience(&self) -> Duration {
        self.inner.patience
    }

    pub(crate) fn questions(&self) -> &Questions {
        &self.inner.questions
    }

    pub(crate) fn hot(&self) -> &Hot {
        &self.inner.hot
    }

    pub(crate) fn master_keys(&self) -> &MasterKeys {
        &self.inner.master_keys
    }

    async fn begin_migration(&self) -> Result<DatabaseTransaction> {
        let transaction = transaction::begin(self).await?;
        if self.backend() == Backend::Postgres {
            // A step may take long. Its locks wait for those who use the tables only briefly, for all others wait behind it meanwhile: it
            // fails then, and may be tried again.
            let bounds = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s'";
            transaction.execute_unprepared(bounds).await.map_err(unavailable)?;
        }
        Ok(transaction)
    }

    async fn applied_migrations(&self) -> Result<HashSet<String>> {
        let backend = self.read().get_database_backend();
        let exists = match self.backend() {
            Backend::Postgres => "SELECT 1 WHERE to_regclass('seaql_migrations') IS NOT NULL",
            Backend::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'",
        };
        let exists = self.read().query_one_raw(Statement::from_string(backend, exists)).await.map_err(unavailable)?;
        if exists.is_none() {
            return Ok(HashSet::new());
        }
        let rows = Statement::from_string(backend, "SELECT version FROM seaql_migrations");
        let rows = self.read().query_all_raw(rows).await.map_err(unavailable)?;
        rows.iter().map(|row| row.try_get_by_index(0).map_err(unavailable)).collect()
    }
}

fn migration_failed(error: sea_orm::DbErr) -> Error {
    tracing::error!(%error, "the schema was not changed");
    Error::unavailable("the schema was not changed: the log says why")
}

fn postgres_options(options: &StoreOptions) -> Result<PgConnectOptions> {
    let connect = PgConnectOptions::from_str(&options.url)
        .map_err(|_| Error::field("database.url", "is not a URL of PostgreSQL"))?
        .application_name("outrider");
    Ok(connect.disable_statement_logging())
}

/// The connections for configuration and questions.
async fn connect_postgres(options: &StoreOptions, connect: PgConnectOptions) -> Result<PgPool> {
    let set_up = Arc::new(options.clone());
    let writes = !options.read_only;
    let (again, anew) = (Arc::new((connect.clone(), Arc::clone(&set_up))), set_up);
    PgPoolOptions::new()
        .max_connections(pool_size(Backend::Postgres, options))
        .acquire_timeout(options.acquire_timeout)
        // Old ones go when they are given back.
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let again = Arc::clone(&again);
            Box::pin(async move {
                let (connect, options) = &*again;
                if meta.idle_for > TESTED_AFTER_IDLE && patience::test(connection, options.acquire_timeout).await.is_err() {
                    // In its place: the pool would wait for a lost host to hear that it is closed.
                    *connection = connect.connect().await?;
                    set_up_question(connection, options).await?;
                }
                Ok(true)
            })
        })
        .after_release(move |connection, meta| Box::pin(patience::test_returned(connection, meta.age, writes)))
        .after_connect(move |connection, _| {
            let options = Arc::clone(&anew);
            Box::pin(async move { set_up_question(connection, &options).await })
        })
        .connect_with(connect)
        .await
        .map_err(|error| cannot_connect(&error))
}

/// A question whose asker is gone ends at the server too, within a second, where the server's system can tell.
const NOTICE_WHO_LEFT: &str =
    "SELECT set_config('client_connection_check_interval', CASE WHEN version() LIKE '%linux%' THEN '1s' ELSE '0' END, false)";

async fn set_up_question(connection: &mut PgConnection, options: &StoreOptions) -> Result<(), sqlx::Error> {
    set_up_session(connection, options).await?;
    sqlx::query(NOTICE_WHO_LEFT).execute(connection).await.map(drop)
}

/// By statement and not by start-up parameters, which poolers refuse. A commit must be on disk: `synchronous_commit = off` is
/// overruled, stronger settings are kept.
pub(crate) async fn set_up_session(connection: &mut PgConnection, options: &StoreOptions) -> Result<(), sqlx::Error> {
    const SET_UP: &str = "SELECT set_config('statement_timeout', $1, false), \
         set_config('idle_in_transaction_session_timeout', '30000', false), \
         set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
             ELSE current_setting('synchronous_commit') END, false)";
    let millis = i64::try_from(options.statement_timeout.as_millis()).unwrap_or(i64::MAX).to_string();
    sqlx::query(SET_UP).bind(millis).execute(&mut *connection).await?;
    if options.read_only {
        sqlx::query("SELECT set_config('default_transaction_read_only', 'on', false)").execute(connection).await?;
    }
    Ok(())
}

/// The ledger's statements are few and constant, and each row they touch is one descent into an index, however large the batch: they are
/// planned once per session, which was a third of their cost. Such a plan knows no sizes: the planner must not take a table that is
/// empty now for one that can be scanned, nor what it then thinks of the cost for a reason to compile. Large payloads are compressed by
/// lz4 where the server has it, which takes half the time of its default.
pub(crate) async fn set_up_ledger(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const LEDGER: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), \
         set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false), \
         (SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))";
    sqlx::query(LEDGER).execute(connection).await?;
    Ok(())
}

async fn connect_sqlite(options: &StoreOptions) -> Result<(SqlitePool, SqlitePool)> {
    let connect = SqliteConnectOptions::from_str(&options.url)
        .map_err(|_| Error::field("database.url", "is not a URL of SQLite"))?
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
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(is_outside(connection)))
            .idle_timeout(None)
            .max_lifetime(lifetime)
            .connect_with(connect)
    };
    let write = pool(1, connect.clone(), None).await.map_err(|error| cannot_connect(&error))?;
    let read = match pool_size(Backend::Sqlite, options) {
        1 => write.clone(),
        size => {
            // The file is there now. One that was removed since must not be replaced by an empty one.
            let connect = connect.create_if_missing(false).pragma("cache_size", READER_CACHE);
            pool(size, connect, Some(READER_LIFETIME)).await.map_err(|error| cannot_connect(&error))?
        }
    };
    Ok((read, write))
}

/// Whether a connection that is given back is in no transaction; one that is not makes room for a new one. When its disk is full or fails,
/// SQLite may end a transaction itself; the driver would then take the connection for one inside for ever, and begin none on it (sqlx 0.9).
async fn is_outside(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // What was dropped is being rolled back: it is, once this is answered.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Connections for questions.
fn pool_size(backend: Backend, options: &StoreOptions) -> u32 {
    // What is in memory of SQLite lives in its one connection, and who only reads a file needs no other.
    match backend {
        Backend::Sqlite if is_in_memory(&options.url) || options.read_only => 1,
        _ => options.max_connections.max(1),
    }
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

fn cannot_connect(error: &sqlx::Error) -> Error {
    tracing::warn!(%error, "the database cannot be reached");
    Error::unavailable("the database cannot be reached")
}

impl From<Backend> for DbBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => Self::Postgres,
            Backend::Sqlite => Self::Sqlite,
        }
    }
}
