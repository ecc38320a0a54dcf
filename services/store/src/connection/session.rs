//! How sessions of PostgreSQL are opened: the first look at the server, and the settings that
//! statements rely on. A role, a database or a pooler may have other settings, so every session
//! sets its own. It does so by a statement, because poolers refuse start-up parameters.

use std::{io, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    failure::{Failure, FailureKind, code, is_away, message},
    hosts::{Hosts, no_answer},
    options::StoreOptions,
    patience, pooler,
    settings::RELIED_ON,
    target::Target,
};

/// The oldest supported version, as in `server_version_num`.
const OLDEST: i32 = 150_000;
/// Pause between attempts to reach a server that is starting.
const PAUSE: Duration = Duration::from_millis(200);

/// Settings that depend on the server. `synchronous_commit = off` is overruled, because a commit
/// must be on disk; stronger values are kept. `transaction_timeout` exists from PostgreSQL 17 on.
const BY_SERVER: &str = "\
     set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
         WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false), \
     CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL \
         THEN set_config('transaction_timeout', '0', false) END";

/// Ends a query at the server within a second after its client disconnects, if the server's
/// operating system supports that.
const NOTICE_DISCONNECT: &str = "SELECT set_config('client_connection_check_interval', \
     CASE WHEN version() LIKE '%linux%' THEN '1s' ELSE '0' END, false)";

/// The ledger's statements are few and constant, and each row they touch is one descent into an
/// index, however large the batch. So they are planned once per session; planning was a third of
/// their cost. Such a plan knows no sizes: the planner must not choose a scan because a table is
/// empty now, nor compile because of the cost that it then expects. Large payloads are compressed
/// with lz4 if the server has it, which takes half the time of the default.
const LEDGER: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), \
     set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false), \
     (SELECT set_config(name, 'lz4', false) FROM pg_settings \
      WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))";

/// Opens sessions of a database and sets them up. A cheap handle.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    hosts: Hosts,
    /// A statement with the settings of `database.url`, carried out before `set_up`. Empty if it
    /// has none.
    settings: String,
    /// One statement, with two parameters: the statement timeout and the search path.
    set_up: String,
    statement_millis: String,
    search_path: String,
    read_only: bool,
    acquire_timeout: Duration,
}

impl Connector {
    /// Connects for the first time and inspects the server. Waits for a server that is starting as
    /// long as for any connection. The error says what is not possible.
    pub async fn new(target: &Target, options: &StoreOptions) -> Result<Self, Failure> {
        let hosts = Hosts::new(target, options).map_err(Failure::parameter)?;
        let mut first = first_connection(&hosts, options.database.acquire_timeout).await?;
        let settings = settings_statement(target);
        let refused =
            |error: sqlx::Error| Failure::of("the settings of a session were refused", &error);
        bounded(apply_settings(&mut first, &settings), options).await.map_err(refused)?;
        let search_path = inspect(&mut first, options).await?;
        pooler::check(&hosts, &mut first, options.database.acquire_timeout).await?;
        let connector = Self(Arc::new(Inner {
            hosts,
            settings,
            set_up: set_up(),
            statement_millis: i64::try_from(options.database.statement_timeout.as_millis())
                .unwrap_or(i64::MAX)
                .to_string(),
            search_path,
            read_only: options.read_only,
            acquire_timeout: options.database.acquire_timeout,
        }));
        let set = async {
            connector.set_up_for_queries(&mut first).await?;
            sqlx::query(LEDGER).execute(&mut first).await
        };
        bounded(set, options).await.map_err(refused)?;
        // If the server does not confirm the close, its session ends anyway.
        let _ = bounded(first.close(), options).await;
        Ok(connector)
    }

    /// The hosts that it connects to.
    pub fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// Opens a connection for configuration and queries.
    pub async fn open_for_queries(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.0.hosts.connect().await?;
        self.set_up_for_queries(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a connection for the ledger.
    pub async fn open_for_ledger(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.0.hosts.connect().await?;
        self.set_up(&mut connection).await?;
        sqlx::query(LEDGER).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Sets up a connection that the pool for queries dialed itself. Replaces it with another if
    /// its host is of the wrong kind.
    pub async fn adopt(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if !self.0.hosts.serves(connection).await? {
            *connection = self.0.hosts.connect().await?;
        }
        self.set_up_for_queries(connection).await
    }

    async fn set_up_for_queries(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.set_up(connection).await?;
        sqlx::query(NOTICE_DISCONNECT).execute(connection).await.map(drop)
    }

    /// If there are several hosts, finds one that serves and makes the pool dial it: the pool knows
    /// only the one that served last.
    pub async fn find_host(&self) {
        if !self.0.hosts.is_plain()
            && let Err(error) = self.0.hosts.connect().await
        {
            tracing::debug!(error = message(&error), "no host of the database serves");
        }
    }

    /// Checks that sessions are still not shared: the settings of a pooler may have changed.
    pub async fn check_sessions(&self) -> Result<(), Failure> {
        let mut first = first_connection(&self.0.hosts, self.0.acquire_timeout).await?;
        pooler::check(&self.0.hosts, &mut first, self.0.acquire_timeout).await
    }

    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let inner = &*self.0;
        apply_settings(connection, &inner.settings).await?;
        let set_up = sqlx::query(AssertSqlSafe(inner.set_up.as_str()))
            .bind(&inner.statement_millis)
            .bind(&inner.search_path);
        set_up.execute(&mut *connection).await?;
        if inner.read_only {
            sqlx::query("SELECT set_config('default_transaction_read_only', 'on', false)")
                .execute(connection)
                .await?;
        }
        Ok(())
    }
}

fn set_up() -> String {
    let relied_on: Vec<String> = RELIED_ON
        .iter()
        .map(|(name, value)| format!("set_config('{name}', '{value}', false)"))
        .collect();
    format!(
        "SELECT set_config('statement_timeout', $1, false), set_config('search_path', $2, false), \
         {}, {BY_SERVER}",
        relied_on.join(", ")
    )
}

/// The settings of `database.url` as a simple statement, which any pooler accepts.
fn settings_statement(target: &Target) -> String {
    // Dollar quotes mean the same under every value of `standard_conforming_strings`.
    let set = |(name, value): &(String, String)| {
        format!(
            "set_config('{name}', $outrider${}$outrider$, false)",
            value.replace("$outrider$", "")
        )
    };
    let settings: Vec<String> = target.settings().iter().map(set).collect();
    if settings.is_empty() { String::new() } else { format!("SELECT {}", settings.join(", ")) }
}

async fn apply_settings(connection: &mut PgConnection, settings: &str) -> Result<(), sqlx::Error> {
    if settings.is_empty() {
        return Ok(());
    }
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(drop)
}

/// Opens the first connection. Tries again within `patience` if it is refused for now.
async fn first_connection(hosts: &Hosts, patience: Duration) -> Result<PgConnection, Failure> {
    let (until, mut last) = (Instant::now() + patience, None);
    let what = || format!("database.url: cannot connect to {}", hosts.addresses());
    loop {
        match timeout_at(until, hosts.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if is_temporary(&error) && Instant::now() + PAUSE < until => {
                last = Some(error)
            }
            Ok(Err(error)) => return Err(Failure::of(what(), &error)),
            Err(_) => {
                return Err(Failure::of(what(), &last.unwrap_or_else(|| no_answer(patience))));
            }
        }
        sleep(PAUSE).await;
    }
}

fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => {
            [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotConnected].contains(&error.kind())
        }
        error => code(error).is_some_and(|code| is_away(&code)),
    }
}

async fn bounded<T>(
    work: impl Future<Output = Result<T, sqlx::Error>>,
    options: &StoreOptions,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(patience::of_a_statement(options), work)
        .await
        .unwrap_or_else(|_| Err(patience::late()))
}

/// Inspects the server by a simple statement, which any pooler accepts. Returns the schema of the
/// tables, or the one in which they will be created, as a `search_path`. The error names everything
/// that is not as it must be.
async fn inspect(connection: &mut PgConnection, options: &StoreOptions) -> Result<String, Failure> {
    const INSPECT: &str = "SELECT current_setting('server_version_num')::int4 AS version,
        current_setting('server_version') AS version_text,
        current_setting('server_encoding') AS server_encoding,
        current_setting('client_encoding') AS client_encoding,
        current_user::text AS role,
        COALESCE(
            (SELECT quote_ident(n.nspname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass('seaql_migrations')),
            quote_ident(current_schema()::text)
        ) AS schema";
    let failed = |error: sqlx::Error| Failure::of("the server was not inspected", &error);
    let row =
        bounded(sqlx::raw_sql(INSPECT).fetch_one(connection), options).await.map_err(failed)?;
    let text = |column| row.try_get::<String, _>(column).map_err(failed);
    let version: i32 = row.try_get("version").map_err(failed)?;
    let (server_encoding, client_encoding) = (text("server_encoding")?, text("client_encoding")?);
    let schema: Option<String> = row.try_get("schema").map_err(failed)?;
    let mut wrong = Vec::new();
    if version < OLDEST {
        let text = text("version_text")?;
        wrong.push(format!("PostgreSQL {text} is too old: it must be 15 or later"));
    }
    if server_encoding != "UTF8" {
        wrong.push(format!(
            "the database has the encoding {server_encoding}: create one with CREATE DATABASE … \
             ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    if client_encoding != "UTF8" {
        wrong.push(format!(
            "its sessions have the client_encoding {client_encoding}, which a pooler may set: it \
             must be UTF8"
        ));
    }
    if schema.is_none() {
        let role = text("role")?;
        wrong.push(format!(
            "the search_path of the role {role} names no schema that exists and that it may use"
        ));
    }
    match schema {
        Some(schema) if wrong.is_empty() => Ok(format!("{schema}, pg_temp")),
        _ => {
            Err(Failure::new(FailureKind::Refused, "the database cannot be used", wrong.join("; ")))
        }
    }
}
