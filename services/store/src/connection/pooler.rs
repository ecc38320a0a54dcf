//! Poolers between Outrider and PostgreSQL. One that gives each client a session of its own works.
//! One that gives each transaction another session does not: settings and prepared statements would
//! belong to other clients, and locks to nobody. It is recognized at the start by two sessions that
//! must be different and must each stay the same. All they leave behind is a setting without a
//! meaning.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::{
    failure::{Failure, FailureKind, code},
    hosts::{Hosts, no_answer},
};

/// Number of checks whether a session stays the same while the other is in a transaction. On a busy
/// pooler, which server a session gets is a matter of chance.
const ROUNDS: usize = 4;

/// What a server session belongs to.
enum Session {
    /// To one client connection.
    Own,
    /// To several clients.
    Shared,
}

const SESSIONS_NEEDED: &str = "a process needs database.max_connections + \
    database.ledger_connections + 1 sessions, also from a pooler";

/// Fails if sessions are shared. `first` was just opened, and nothing was set in it.
pub(crate) async fn check(
    hosts: &Hosts,
    first: &mut PgConnection,
    patience: Duration,
) -> Result<(), Failure> {
    let second = tokio::time::timeout(patience, hosts.connect())
        .await
        .unwrap_or_else(|_| Err(no_answer(patience)));
    let mut second = second.map_err(|error| {
        Failure::of("no second session was opened", &error).with_advice(SESSIONS_NEEDED)
    })?;
    let found = tokio::time::timeout(patience, compare(first, &mut second))
        .await
        .unwrap_or_else(|_| Err(no_answer(patience)));
    match found {
        Ok(Session::Own) => {
            let _ = tokio::time::timeout(patience, second.close()).await;
            Ok(())
        }
        Err(error) if !is_of_sharing(&error) => {
            Err(too_few("two sessions were not compared", &error))
        }
        Ok(Session::Shared) | Err(_) => Err(shared()),
    }
}

/// A pooler that has no free server accepts a session and lets it wait.
fn too_few(what: &str, error: &sqlx::Error) -> Failure {
    let failure = Failure::of(what, error);
    if failure.kind == FailureKind::Refused {
        return failure;
    }
    failure.with_advice(SESSIONS_NEEDED)
}

fn shared() -> Failure {
    let words = "it leads to a pooler that gives each transaction another session (transaction or \
        statement pooling), but Outrider keeps settings, prepared statements and a lock in its \
        sessions";
    Failure::new(FailureKind::Refused, "database.url", words).with_advice(
        "use session pooling for this database (PgBouncer: pool_mode=session in [databases] or \
         [users]), or the server's own address",
    )
}

/// Whether an error is typical of shared sessions: a prepared statement that is missing or already
/// there, a transaction that began elsewhere, or PgBouncer's own message.
pub(crate) fn is_of_sharing(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    let by_code = code(error)
        .is_some_and(|code| ["26000", "42P05", "25P01", "25P02"].contains(&code.as_str()));
    by_code || database.message().contains("statement pooling mode")
}

async fn compare(a: &mut PgConnection, b: &mut PgConnection) -> Result<Session, sqlx::Error> {
    let nonce: u64 = rand::random();
    let (name_a, name_b) = (format!("a-{nonce:016x}"), format!("b-{nonce:016x}"));
    name(a, &name_a).await?;
    if named(b, "").await?.as_deref() == Some(&name_a) {
        return Ok(Session::Shared);
    }
    name(b, &name_b).await?;
    for _ in 0..ROUNDS {
        // In a transaction, b keeps its server, so a must be on another.
        let held = named(b, "BEGIN; ").await?;
        let other = named(a, "").await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *b).await?;
        if held.as_deref() != Some(&name_b) || other.as_deref() != Some(&name_a) {
            return Ok(Session::Shared);
        }
    }
    are_renamed(a, nonce).await
}

async fn name(session: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    let set = format!("SELECT set_config('outrider.session', '{name}', false)");
    sqlx::raw_sql(AssertSqlSafe(set)).execute(session).await.map(drop)
}

async fn named(session: &mut PgConnection, before: &str) -> Result<Option<String>, sqlx::Error> {
    let ask = format!("{before}SELECT current_setting('outrider.session', true)");
    sqlx::raw_sql(AssertSqlSafe(ask)).fetch_one(session).await?.try_get(0)
}

/// Only in its transaction and statement modes does PgBouncer rename prepared statements. That
/// shows however busy it is.
async fn are_renamed(session: &mut PgConnection, nonce: u64) -> Result<Session, sqlx::Error> {
    let ask =
        format!("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%{nonce:016x}%'");
    let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(ask)).fetch_all(session).await?;
    Ok(if names.iter().any(|name| name.starts_with("PGBOUNCER_")) {
        Session::Shared
    } else {
        Session::Own
    })
}
