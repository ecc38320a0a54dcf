//! Databases for tests, of this crate and of others (feature `testing`). Each test gets a fresh
//! one, which is gone afterwards.
//!
//! PostgreSQL: with `OUTRIDER_TEST_POSTGRES` (the URL of a role that may create databases, as in
//! `postgres://user@127.0.0.1:5432/postgres`) that server; else one that this process starts and
//! that ends with it, however it ends. Without either a test fails, unless
//! `OUTRIDER_TEST_SKIP_POSTGRES=1`: then it says that it skips.

mod pgbouncer;
#[cfg(test)]
pub(crate) mod renaming;
mod server;

use std::{
    fmt::Write,
    path::Path,
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use sea_orm::ConnectionTrait;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::{DatabaseOptions, MasterKeys, Store, StoreOptions};

pub use pgbouncer::PgBouncer;

/// A fresh database of PostgreSQL, dropped with this value.
pub struct TestPostgres {
    admin_url: String,
    name: String,
    url: String,
}

impl TestPostgres {
    /// Creates a database. None when PostgreSQL is to be skipped; this is said on standard error.
    ///
    /// # Panics
    /// When there is no server and it is not to be skipped.
    pub async fn create() -> Option<Self> {
        let admin_url = match tokio::task::spawn_blocking(admin_url)
            .await
            .expect("the server is started without a panic")
        {
            Ok(url) => url,
            Err(why)
                if std::env::var("OUTRIDER_TEST_SKIP_POSTGRES").is_ok_and(|skip| skip == "1") =>
            {
                eprintln!("SKIPPED on PostgreSQL (OUTRIDER_TEST_SKIP_POSTGRES=1): {why}");
                return None;
            }
            Err(why) => panic!(
                "no PostgreSQL for tests: {why}. Install it, set OUTRIDER_TEST_POSTGRES, or set OUTRIDER_TEST_SKIP_POSTGRES=1"
            ),
        };
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name =
            format!("outrider_test_{}_{count}_{:08x}", std::process::id(), rand::random::<u32>());
        execute(&admin_url, &format!("CREATE DATABASE {name}"))
            .await
            .expect("a database is created");
        let url = with_database(&admin_url, &name);
        Some(Self { admin_url, name, url })
    }

    /// The URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL for a role that may log in and has no right of its own. It goes with the database.
    ///
    /// # Panics
    /// When the role of the tests may make none.
    pub async fn role(&self) -> (String, String) {
        let role = format!("{}_role", self.name);
        execute(&self.url, &format!("CREATE ROLE {role} LOGIN")).await.expect("a role is made");
        let host = self.url.split_once('@').map_or("", |(_, host)| host);
        (format!("postgres://{role}@{host}"), role)
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        let drop_it = [
            format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
            format!("DROP ROLE IF EXISTS {}_role", self.name),
        ];
        let url = self.admin_url.clone();
        // Drop cannot wait, and the test's own runtime may be ending.
        let done = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| {
                runtime.block_on(async {
                    for statement in &drop_it {
                        execute(&url, statement).await?;
                    }
                    Ok::<(), sqlx::Error>(())
                })
            })
        });
        if !matches!(done.join(), Ok(Ok(Ok(())))) {
            eprintln!("the test's database {} was not dropped", self.name);
        }
    }
}

/// A fresh database of either kind, with options to connect to it.
pub struct TestDatabase {
    options: StoreOptions,
    /// Dropped with this value.
    _kept: Kept,
}

enum Kept {
    Postgres { _database: TestPostgres },
    Directory(TempDir),
}

impl TestDatabase {
    /// One of PostgreSQL; none when PostgreSQL is to be skipped.
    pub async fn postgres() -> Option<Self> {
        let database = TestPostgres::create().await?;
        Some(Self {
            options: options(database.url()),
            _kept: Kept::Postgres { _database: database },
        })
    }

    /// One that somebody else made ready, for a role of theirs.
    #[cfg(test)]
    pub(crate) fn given(database: TestPostgres, options: StoreOptions) -> Self {
        Self { options, _kept: Kept::Postgres { _database: database } }
    }

    /// One of SQLite, in a file.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    #[must_use]
    pub fn sqlite() -> Self {
        let directory = TempDir::new().expect("there is room for temporary files");
        let url = format!("sqlite://{}", directory.path().join("outrider.db").display());
        Self { options: options(&url), _kept: Kept::Directory(directory) }
    }

    /// Where the files of SQLite are.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self._kept {
            Kept::Directory(directory) => Some(directory.path()),
            Kept::Postgres { .. } => None,
        }
    }

    /// How to connect to it.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Another connection to it, as of another process; the schema as it is.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn connect(&self) -> Store {
        Store::connect(&self.options).await.expect("the test's database answers")
    }

    /// Carries out a statement in it, as only who damages it does.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn execute(&self, statement: &str) {
        self.connect()
            .await
            .write()
            .execute_unprepared(statement)
            .await
            .expect("the test's statement is carried out");
    }

    /// A connection to it, with its schema up to date.
    ///
    /// # Panics
    /// When it cannot be reached or migrated.
    pub async fn store(&self) -> Store {
        let store = self.connect().await;
        store.migrate_up().await.expect("the test's database is migrated");
        store
    }
}

/// Options for tests: random master keys, few connections.
#[must_use]
pub fn options(url: &str) -> StoreOptions {
    let master_keys =
        MasterKeys::parse(&MasterKeys::generate_text("test")).expect("a generated key is one");
    // Tests run side by side, on machines that may be slow.
    with(StoreOptions::new(url, master_keys), |database| {
        database.max_connections = 8;
        database.acquire_timeout = std::time::Duration::from_secs(20);
    })
}

/// The same options with other settings.
#[must_use]
pub fn with(mut options: StoreOptions, change: impl FnOnce(&mut DatabaseOptions)) -> StoreOptions {
    change(&mut options.database);
    options
}

/// The server for this process: given, or started once.
fn admin_url() -> Result<String, String> {
    static SERVER: OnceLock<Result<server::Server, String>> = OnceLock::new();
    if let Ok(url) = std::env::var("OUTRIDER_TEST_POSTGRES") {
        return Ok(url);
    }
    SERVER
        .get_or_init(server::Server::start)
        .as_ref()
        .map(|server| server.url().to_owned())
        .map_err(Clone::clone)
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(&PgConnectOptions::from_str(url)?).await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    connection.close().await
}

/// The same URL with another database.
pub(crate) fn with_database(url: &str, name: &str) -> String {
    let (base, query) =
        url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let mut url = format!("{}/{name}", &base[..end]);
    if let Some(query) = query {
        let _ = write!(url, "?{query}");
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        assert_eq!(
            with_database("postgres://u:p@h:1/postgres?sslmode=disable", "x"),
            "postgres://u:p@h:1/x?sslmode=disable"
        );
        assert_eq!(with_database("postgres://h", "x"), "postgres://h/x");
    }
}
