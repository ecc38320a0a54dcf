//! The store: its connections, its schema, its clock.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use sea_orm::{DatabaseConnection, DbBackend, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::{
    ConnectOptions, Connection as _, PgPool, SqliteConnection, SqlitePool,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    Clock, Failure, FailureKind, Ledger, MasterKeys, StoreOptions,
    error::unavailable,
    ledger, measure, patience,
    probes::Standing,
    questions::Questions,
    session::Reach,
    sessions::Sessions,
    target::{self, Target},
};

/// A connection that was idle for longer is tested before it is used, so that a restart of the
/// database is not a caller's error.
pub(crate) const TESTED_AFTER_IDLE: Duration = Duration::from_secs(1);
/// A connection that reads SQLite's file is closed after so long, and with it go its pages and its
/// statements: memory follows use.
const READER_LIFETIME: Duration = Duration::from_secs(20);
/// What it caches of the file, in SQLite's terms: 512 KiB, a quarter of the default. The system
/// caches the file too.
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
    standing: Standing,
    ledger: OnceLock<Arc<dyn Ledger>>,
}

/// The connections of the ledger. On PostgreSQL they are its own, so that no question waits for
/// events nor events for questions, and they plan otherwise.
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
            Hot::Sqlite { read, write } => {
                [read, write].map(|pool| (pool.size(), pool.num_idle())).into()
            }
        }
    }
}

impl Store {
    /// Connects. The schema is left as it is: see [`Store::migrate_up`].
    pub async fn connect(options: &StoreOptions) -> Result<Self, Failure> {
        let (backend, read, write, hot) = match Backend::of(&options.database.url) {
            Some(Backend::Postgres) => {
                let reach = Reach::find(&target(options)?, options).await?;
                let pool = connect_postgres(options, &reach).await?;
                let hot = Sessions::new(reach, options);
                let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
                (Backend::Postgres, pool.clone(), pool, Hot::Postgres(hot))
            }
            Some(Backend::Sqlite) => {
                let (read, write) = connect_sqlite(options).await?;
                let hot = Hot::Sqlite { read: read.clone(), write: write.clone() };
                let [read, write] = [read, write].map(SqlxSqliteConnector::from_sqlx_sqlite_pool);
                (Backend::Sqlite, read, write, hot)
            }
            None => return Err(Failure::parameter("must begin with postgres:// or sqlite:")),
        };
        let patience = patience::of(backend, options);
        let clock = patience::within(patience, Clock::measured(read.clone())).await;
        let clock = clock.map_err(|error| {
            Failure::new(FailureKind::Unreachable, "its clock was not read", error.to_string())
        })?;
        let (master_keys, ledger) = (options.master_keys.clone(), OnceLock::new());
        let most = options.database.max_connections
            + if backend == Backend::Postgres { options.database.ledger_connections } else { 1 };
        let questions =
            Questions::new(pool_size(backend, options), options.database.acquire_timeout);
        let inner = Arc::new(Inner {
            backend,
            read,
            write,
            hot,
            questions,
            clock,
            master_keys,
            patience,
            standing: Standing::default(),
            ledger,
        });
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

    /// OK when the database can be worked with: it answers, its schema is current, and it refuses
    /// nothing of the work that this process began with ([`Store::begin`]).
    pub async fn ready(&self) -> Result<(), Failure> {
        self.current().await?;
        self.tomorrow().await?;
        self.standing().check()
    }

    /// Closes all connections but those of the ledger, which end with its last handle; calls under
    /// way end first, in bounds.
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

    /// For writes. On SQLite this is one connection: who holds it must not ask for another, and
    /// does not see "database is locked".
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

    pub(crate) fn standing(&self) -> &Standing {
        &self.inner.standing
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
}

/// What is wrong with a `database.url`, if anything. It is not dialled, no file is read, and the
/// error tells no value.
pub fn check_url(url: &str) -> Result<(), String> {
    if target::is_postgres(url) {
        return Target::parse(url).map(drop);
    }
    let Some(file) = url.strip_prefix("sqlite:") else {
        return Err(
            "must begin with sqlite: or postgres://, or be HOST=… pairs as of libpq".to_owned()
        );
    };
    check_file(file.strip_prefix("//").unwrap_or(file)).map_err(str::to_owned)
}

/// SQLite without a name is a database that nobody finds again, and the parameters of its URLs are
/// ours to set.
fn check_file(file: &str) -> Result<(), &'static str> {
    if file.is_empty() {
        Err("must name a file, as in sqlite://outrider.db")
    } else if file.contains('?') {
        Err(
            "must have nothing after the file: it is made where it is missing, and is read and written (in a name write %3F)",
        )
    } else {
        Ok(())
    }
}

fn target(options: &StoreOptions) -> Result<Target, Failure> {
    let target = Target::parse(&options.database.url)
        .and_then(|target| target.with_environment(|name| std::env::var(name).ok()));
    target.map_err(Failure::parameter)
}

/// The connections for configuration and questions.
async fn connect_postgres(options: &StoreOptions, reach: &Reach) -> Result<PgPool, Failure> {
    let (writes, acquire_timeout) = (!options.read_only, options.database.acquire_timeout);
    let (again, anew) = (reach.clone(), reach.clone());
    let pool = PgPoolOptions::new()
        .max_connections(pool_size(Backend::Postgres, options))
        .acquire_timeout(options.database.acquire_timeout)
        // Old ones go when they are given back.
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let reach = again.clone();
            Box::pin(async move {
                if meta.idle_for > TESTED_AFTER_IDLE
                    && patience::test(connection, acquire_timeout).await.is_err()
                {
                    // In its place: the pool would wait for a lost host to hear that it is closed.
                    *connection = reach.question().await?;
                }
                Ok(true)
            })
        })
        .after_release(move |connection, meta| {
            Box::pin(patience::test_returned(connection, meta.age, writes))
        })
        .after_connect(move |connection, _| {
            let reach = anew.clone();
            Box::pin(async move { reach.accept(connection).await })
        })
        .connect_with(reach.hosts().current().clone());
    let pool =
        pool.await.map_err(|error| Failure::of("no connection of the pool was opened", &error))?;
    reach.hosts().lead(&pool);
    Ok(pool)
}

async fn connect_sqlite(options: &StoreOptions) -> Result<(SqlitePool, SqlitePool), Failure> {
    let connect = SqliteConnectOptions::from_str(&options.database.url)
        .map_err(|_| Failure::parameter("is not a URL of SQLite"))?
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
            .after_release(|connection, _| Box::pin(is_outside(connection)))
            .idle_timeout(None)
            .max_lifetime(lifetime)
            .connect_with(connect)
    };
    let write = pool(1, connect.clone(), None).await.map_err(|error| cannot_open(&error))?;
    let read = match pool_size(Backend::Sqlite, options) {
        1 => write.clone(),
        size => {
            // The file is there now. One that was removed since must not be replaced by an empty
            // one.
            let connect = connect.create_if_missing(false).pragma("cache_size", READER_CACHE);
            pool(size, connect, Some(READER_LIFETIME)).await.map_err(|error| cannot_open(&error))?
        }
    };
    Ok((read, write))
}

/// Whether a connection that is given back is in no transaction; one that is not makes room for a
/// new one. When its disk is full or fails, SQLite may end a transaction itself; the driver would
/// then take the connection for one inside for ever, and begin none on it (sqlx 0.9).
async fn is_outside(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // What was dropped is being rolled back: it is, once this is answered.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Connections for questions.
fn pool_size(backend: Backend, options: &StoreOptions) -> u32 {
    // What is in memory of SQLite lives in its one connection, and who only reads a file needs no
    // other.
    match backend {
        Backend::Sqlite if is_in_memory(&options.database.url) || options.read_only => 1,
        _ => options.database.max_connections.max(1),
    }
}

fn is_in_memory(url: &str) -> bool {
    matches!(url, "sqlite::memory:" | "sqlite://:memory:")
}

fn cannot_open(error: &sqlx::Error) -> Failure {
    let failure = Failure::of("database.url: the database of SQLite was not opened", error);
    match error {
        sqlx::Error::PoolTimedOut => failure.with_advice(
            "another process has the file: does `outrider serve` or `outrider dev` run on it?",
        ),
        _ => failure,
    }
}

impl Backend {
    /// Which database a `database.url` is for.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        if target::is_postgres(url) {
            return Some(Self::Postgres);
        }
        url.starts_with("sqlite:").then_some(Self::Sqlite)
    }
}

impl From<Backend> for DbBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Postgres => Self::Postgres,
            Backend::Sqlite => Self::Sqlite,
        }
    }
}
