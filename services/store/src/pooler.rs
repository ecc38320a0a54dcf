//! Poolers between us and PostgreSQL. One that gives each client a session of its own is fine. One
//! that gives each transaction another session is not: settings and prepared statements would be
//! those of others, and locks nobody's. It is told at the start, by two sessions that must be two
//! and must each stay itself; what they leave behind is a setting that means nothing.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use crate::{
    Failure, FailureKind,
    failure::code,
    hosts::{Hosts, no_answer},
};

/// Looks at whether each session stays itself while another is in a transaction. On a busy pooler
/// each is a draw among its servers.
const ROUNDS: usize = 4;

/// What was found of a session.
enum Found {
    Itself,
    /// It is shared with others.
    Shared,
}

/// An error when sessions are shared. `first` was just opened, and nothing was set in it.
pub(crate) async fn check(
    hosts: &Hosts,
    first: &mut PgConnection,
    patience: Duration,
) -> Result<(), Failure> {
    let second = tokio::time::timeout(patience, hosts.connect())
        .await
        .unwrap_or_else(|_| Err(no_answer(patience)));
    let mut second = second.map_err(|error| {
        let advice = "a process needs database.max_connections + database.ledger_connections + 1 sessions, of a pooler too";
        Failure::of("no second session was opened", &error).with_advice(advice)
    })?;
    let found = tokio::time::timeout(patience, compare(first, &mut second))
        .await
        .unwrap_or_else(|_| Err(no_answer(patience)));
    match found {
        Ok(Found::Itself) => {
            let _ = tokio::time::timeout(patience, second.close()).await;
            Ok(())
        }
        Err(error) if !is_of_sharing(&error) => {
            Err(few("two sessions were not told apart", &error))
        }
        Ok(Found::Shared) | Err(_) => Err(shared()),
    }
}

/// A pooler lets a session in and has it wait for a server when it has no more.
fn few(what: &str, error: &sqlx::Error) -> Failure {
    let failure = Failure::of(what, error);
    if failure.kind == FailureKind::Refused {
        return failure;
    }
    failure.with_advice("a process needs database.max_connections + database.ledger_connections + 1 sessions, of a pooler too")
}

fn shared() -> Failure {
    let words = "it leads to a pooler that gives each transaction another session (transaction or statement pooling), \
        but Outrider keeps settings, prepared statements and a lock in its sessions";
    Failure::new(FailureKind::Refused, "database.url", words).with_advice(
        "use session pooling for this database (PgBouncer: pool_mode=session in [databases] or [users]), or the server's own address",
    )
}

/// A prepared statement that is there no more or already, a transaction that began elsewhere, or
/// PgBouncer's own words.
pub(crate) fn is_of_sharing(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    let by_code = code(error)
        .is_some_and(|code| ["26000", "42P05", "25P01", "25P02"].contains(&code.as_str()));
    by_code || database.message().contains("statement pooling mode")
}

async fn compare(a: &mut PgConnection, b: &mut PgConnection) -> Result<Found, sqlx::Error> {
    let nonce: u64 = rand::random();
    let (name_a, name_b) = (format!("a-{nonce:016x}"), format!("b-{nonce:016x}"));
    name(a, &name_a).await?;
    if named(b, "").await?.as_deref() == Some(&name_a) {
        return Ok(Found::Shared);
    }
    name(b, &name_b).await?;
    for _ in 0..ROUNDS {
        // In a transaction it keeps its server, so that the other must be at its own.
        let held = named(b, "BEGIN; ").await?;
        let other = named(a, "").await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *b).await?;
        if held.as_deref() != Some(&name_b) || other.as_deref() != Some(&name_a) {
            return Ok(Found::Shared);
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

/// PgBouncer gives prepared statements names of its own, in no mode but those: that is certain
/// however busy it is.
async fn are_renamed(session: &mut PgConnection, nonce: u64) -> Result<Found, sqlx::Error> {
    let ask =
        format!("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%{nonce:016x}%'");
    let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(ask)).fetch_all(session).await?;
    Ok(if names.iter().any(|name| name.starts_with("PGBOUNCER_")) {
        Found::Shared
    } else {
        Found::Itself
    })
}
