//! Partitions of the days to come.

use outrider_migrations::partitions::{Partition, Table, tables, wanted_of};
use outrider_model::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::ledger::codec::day_of;

/// Whoever makes partitions holds this advisory lock.
const LOCK: i64 = 0x6f75_7472_7061_7274;

const EXISTING: &str = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = ANY($1::text[]::regclass[]) AND c.relname = ANY($2)";

/// Creates what is missing. Usually nothing is, and that costs one look-up. Several processes may do this at once.
pub(super) async fn prepare(connection: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    let wanted = wanted_of(&tables().collect::<Vec<Table>>(), day_of(now).into());
    if missing(connection, &wanted).await?.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    for partition in missing(&mut transaction, &wanted).await? {
        for statement in &partition.statements {
            sqlx::raw_sql(AssertSqlSafe(statement.as_str())).execute(&mut *transaction).await?;
        }
        tracing::info!(partition = partition.name, "made a partition");
    }
    transaction.commit().await
}

async fn missing<'a>(connection: &mut PgConnection, wanted: &'a [Partition]) -> Result<Vec<&'a Partition>, sqlx::Error> {
    let names: Vec<&str> = wanted.iter().map(|partition| partition.name.as_str()).collect();
    let parents: Vec<&str> = tables().map(|table| table.name).collect();
    let existing: Vec<String> = sqlx::query_scalar(EXISTING).bind(parents).bind(names).fetch_all(connection).await?;
    Ok(wanted.iter().filter(|partition| !existing.contains(&partition.name)).collect())
}
