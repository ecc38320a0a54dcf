//! Databases for tests of this crate and, with the feature `testing`, of others. Each test gets a
//! fresh database, which is removed afterwards.
//!
//! For PostgreSQL, `OUTRIDER_TEST_POSTGRES` may name a server (the URL of a role that may create
//! databases, such as `postgres://user@127.0.0.1:5432/postgres`). Otherwise this process starts a
//! server, which ends with it, however it ends. Without either a test fails, unless
//! `OUTRIDER_TEST_SKIP_POSTGRES=1` is set: then it reports that it skips.

#[cfg(test)]
pub(crate) mod backends;
#[cfg(test)]
pub(crate) mod granted;
mod pgbouncer;
#[cfg(test)]
pub(crate) mod renaming;
#[cfg(test)]
pub(crate) mod scene;
mod server;
#[cfg(test)]
pub(crate) mod tenant;
#[cfg(test)]
pub(crate) mod world;

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

/// A fresh PostgreSQL database, dropped with this value.
pub struct TestPostgres {
    admin_url: String,
    name: String,
    url: String,
}

impl TestPostgres {
    /// Creates a database. None if PostgreSQL is skipped, which is reported on standard error.
    ///
    /// # Panics
    /// If there is no server and PostgreSQL must not be skipped.
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
                "no PostgreSQL for tests: {why}. Install it, set OUTRIDER_TEST_POSTGRES, or set \
                 OUTRIDER_TEST_SKIP_POSTGRES=1"
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

    /// Creates a role that may log in and has no rights. Returns its URL and its name. It is
    /// dropped with the database.
    ///
    /// # Panics
    /// If the role of the tests may not create roles.
    pub async fn role(&self) -> (String, String) {
        let role = format!("{}_role", self.name);
        execute(&self.url, &format!("CREATE ROLE {role} LOGIN")).await.expect("a role is created");
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
        // Drop cannot await, and the test's own runtime may be ending.
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
    /// Removed with this value.
    resource: Resource,
}

enum Resource {
    Postgres { _database: TestPostgres },
    Directory(TempDir),
}

impl TestDatabase {
    /// Creates a PostgreSQL database. None if PostgreSQL is skipped.
    pub async fn postgres() -> Option<Self> {
        let database = TestPostgres::create().await?;
        Some(Self {
            options: options(database.url()),
            resource: Resource::Postgres { _database: database },
        })
    }

    /// A database that was prepared elsewhere, with options for a role in it.
    #[cfg(test)]
    pub(crate) fn given(database: TestPostgres, options: StoreOptions) -> Self {
        Self { options, resource: Resource::Postgres { _database: database } }
    }

    /// Creates a SQLite database in a file.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[must_use]
    pub fn sqlite() -> Self {
        let directory = TempDir::new().expect("there is room for temporary files");
        let url = format!("sqlite://{}", directory.path().join("outrider.db").display());
        Self { options: options(&url), resource: Resource::Directory(directory) }
    }

    /// The directory of SQLite's files.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.resource {
            Resource::Directory(directory) => Some(directory.path()),
            Resource::Postgres { .. } => None,
        }
    }

    /// The options to connect to it.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Connects again, as another process would. Leaves the schema as it is.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn connect(&self) -> Store {
        Store::connect(&self.options).await.expect("the test's database answers")
    }

    /// Carries out a statement directly, for example to damage the database.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn execute(&self, statement: &str) {
        self.connect()
            .await
            .write()
            .execute_unprepared(statement)
            .await
            .expect("the test's statement is carried out");
    }

    /// Connects and brings the schema up to date.
    ///
    /// # Panics
    /// If it cannot be reached or migrated.
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
    // Tests run in parallel, on machines that may be slow.
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

/// The server for this process: the given one, or one that is started once.
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

/// Replaces the database of a URL.
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
