//! A session of PostgreSQL: the first look at the server, and the settings that the statements rely
//! on. A role, a database or a pooler may have others; ours are set in every session, by statement
//! and not by start-up parameters, which poolers refuse.

use std::{io, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Failure, FailureKind, StoreOptions,
    failure::{code, is_away, told},
    hosts::{Hosts, no_answer},
    patience, pooler,
    target::Target,
};

/// The oldest version whose SQL we speak.
const OLDEST: i32 = 150_000;
/// Between tries to reach a server that starts.
const PAUSE: Duration = Duration::from_millis(200);

/// What every session is set to. Under another isolation a look that follows a lock would see what
/// was before the lock, and what is pending would lose its event; another `search_path` finds other
/// tables. The others keep waits and formats as they are expected.
pub(crate) const RELIED_ON: [(&str, &str); 9] = [
    ("default_transaction_isolation", "read committed"),
    ("lock_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "30000"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
];

/// What depends on the server: `synchronous_commit = off` is overruled, for a commit must be on
/// disk, and stronger settings are kept; `transaction_timeout` is there from PostgreSQL 17 on.
const BY_SERVER: &str = "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
         ELSE current_setting('synchronous_commit') END, false), \
     CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL THEN set_config('transaction_timeout', '0', false) END";

/// A question whose asker is gone ends at the server too, within a second, where the server's
/// system can tell.
const NOTICE_WHO_LEFT: &str = "SELECT set_config('client_connection_check_interval', CASE WHEN version() LIKE '%linux%' THEN '1s' ELSE '0' END, false)";

/// The ledger's statements are few and constant, and each row they touch is one descent into an
/// index, however large the batch: they are planned once per session, which was a third of their
/// cost. Such a plan knows no sizes: the planner must not take a table that is empty now for one
/// that can be scanned, nor what it then thinks of the cost for a reason to compile. Large payloads
/// are compressed by lz4 where the server has it, which takes half the time of its default.
const LEDGER: &str = "SELECT set_config('plan_cache_mode', 'force_generic_plan', false), \
     set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false), \
     (SELECT set_config(name, 'lz4', false) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals))";

/// Where the database is, and how its sessions are set up. A cheap handle.
#[derive(Clone)]
pub(crate) struct Reach(Arc<Inner>);

struct Inner {
    hosts: Hosts,
    /// A statement that sets what `database.url` says, before ours; empty for nothing.
    settings: String,
    /// One statement, with what is bound to it: the time a statement may take, and where tables are
    /// looked for.
    set_up: String,
    statement_millis: String,
    search_path: String,
    read_only: bool,
    acquire_timeout: Duration,
}

impl Reach {
    /// Looks at the server for the first time: a server that starts is waited for as long as any
    /// connection. The error says what cannot be.
    pub async fn find(target: &Target, options: &StoreOptions) -> Result<Self, Failure> {
        let hosts = Hosts::new(target, options).map_err(Failure::parameter)?;
        let mut first = reached(&hosts, options.database.acquire_timeout).await?;
        let settings = given(target);
        let refused =
            |error: sqlx::Error| Failure::of("the settings of a session were refused", &error);
        bounded(set_given(&mut first, &settings), options).await.map_err(refused)?;
        let search_path = look(&mut first, options).await?;
        pooler::check(&hosts, &mut first, options.database.acquire_timeout).await?;
        let reach = Self(Arc::new(Inner {
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
            reach.set_up_question(&mut first).await?;
            sqlx::query(LEDGER).execute(&mut first).await
        };
        bounded(set, options).await.map_err(refused)?;
        // What it leaves behind is a session that ends; whether it hears of it is no matter.
        let _ = bounded(first.close(), options).await;
        Ok(reach)
    }

    /// Where sessions are opened.
    pub fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// A connection for configuration and questions.
    pub async fn question(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.0.hosts.connect().await?;
        self.set_up_question(&mut connection).await?;
        Ok(connection)
    }

    /// A connection for the ledger.
    pub async fn ledger(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.0.hosts.connect().await?;
        self.set_up(&mut connection).await?;
        sqlx::query(LEDGER).execute(&mut connection).await?;
        Ok(connection)
    }

    /// What the pool for questions dialled itself; in its place another, when its host will not do.
    pub async fn accept(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if !self.0.hosts.serves(connection).await? {
            *connection = self.0.hosts.connect().await?;
        }
        self.set_up_question(connection).await
    }

    async fn set_up_question(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.set_up(connection).await?;
        sqlx::query(NOTICE_WHO_LEFT).execute(connection).await.map(drop)
    }

    /// Finds a host that will do, where there are several, and tells the pool, which only knows the
    /// one that served last.
    pub async fn find_host(&self) {
        if !self.0.hosts.is_plain()
            && let Err(error) = self.0.hosts.connect().await
        {
            tracing::debug!(error = told(&error), "no host of the database will do");
        }
    }

    /// Whether sessions are still sessions: a pooler may have been set otherwise.
    pub async fn check_sessions(&self) -> Result<(), Failure> {
        let mut first = reached(&self.0.hosts, self.0.acquire_timeout).await?;
        pooler::check(&self.0.hosts, &mut first, self.0.acquire_timeout).await
    }

    async fn set_up(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let inner = &*self.0;
        set_given(connection, &inner.settings).await?;
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
        "SELECT set_config('statement_timeout', $1, false), set_config('search_path', $2, false), {}, {BY_SERVER}",
        relied_on.join(", ")
    )
}

/// What `database.url` says, as a simple statement, which any pooler takes.
fn given(target: &Target) -> String {
    // A quote that no setting that `standard_conforming_strings` may have reads otherwise.
    let set = |(name, value): &(String, String)| {
        format!(
            "set_config('{name}', $outrider${}$outrider$, false)",
            value.replace("$outrider$", "")
        )
    };
    let settings: Vec<String> = target.settings().iter().map(set).collect();
    if settings.is_empty() { String::new() } else { format!("SELECT {}", settings.join(", ")) }
}

async fn set_given(connection: &mut PgConnection, settings: &str) -> Result<(), sqlx::Error> {
    if settings.is_empty() {
        return Ok(());
    }
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(drop)
}

/// The first connection. One that is refused for now is tried again until it is given up.
async fn reached(hosts: &Hosts, patience: Duration) -> Result<PgConnection, Failure> {
    let (until, mut last) = (Instant::now() + patience, None);
    let what = || format!("database.url: cannot connect to {}", hosts.places());
    loop {
        match timeout_at(until, hosts.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if is_for_now(&error) && Instant::now() + PAUSE < until => {
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

fn is_for_now(error: &sqlx::Error) -> bool {
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

/// By a simple statement, which any pooler takes. The schema of our tables, or in which they will
/// be made, as a `search_path`; an error tells all that is not as it must be.
async fn look(connection: &mut PgConnection, options: &StoreOptions) -> Result<String, Failure> {
    const LOOK: &str = "SELECT current_setting('server_version_num')::int4 AS version, current_setting('server_version') AS told,
        current_setting('server_encoding') AS kept, current_setting('client_encoding') AS spoken, current_user::text AS role,
        COALESCE((SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = to_regclass('seaql_migrations')),
                 quote_ident(current_schema()::text)) AS home";
    let failed = |error: sqlx::Error| Failure::of("the server was not looked at", &error);
    let row = bounded(sqlx::raw_sql(LOOK).fetch_one(connection), options).await.map_err(failed)?;
    let text = |column| row.try_get::<String, _>(column).map_err(failed);
    let (version, told): (i32, String) = (row.try_get("version").map_err(failed)?, text("told")?);
    let (kept, spoken, role) = (text("kept")?, text("spoken")?, text("role")?);
    let home: Option<String> = row.try_get("home").map_err(failed)?;
    let mut wrong = Vec::new();
    if version < OLDEST {
        wrong.push(format!("PostgreSQL {told} is too old: it must be 15 or later"));
    }
    if kept != "UTF8" {
        wrong.push(format!(
            "the database has the encoding {kept}: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        ));
    }
    if spoken != "UTF8" {
        wrong.push(format!("its sessions have the client_encoding {spoken}, which a pooler may set: it must be UTF8"));
    }
    if home.is_none() {
        wrong.push(format!(
            "the search_path of the role {role} names no schema that is there and that it may use"
        ));
    }
    match home {
        Some(home) if wrong.is_empty() => Ok(format!("{home}, pg_temp")),
        _ => {
            Err(Failure::new(FailureKind::Refused, "the database cannot be used", wrong.join("; ")))
        }
    }
}
