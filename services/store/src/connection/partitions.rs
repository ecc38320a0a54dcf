//! Partitions of the coming days, on PostgreSQL.

use outrider_migrations::partitions::{DAYS_AHEAD, Partition, Table, of_day, tables, wanted_of};
use outrider_model::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::days::day_of;

/// The advisory lock of a process that creates partitions.
const LOCK: i64 = 0x6f75_7472_7061_7274;

const EXISTING: &str = "SELECT c.relname::text \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = ANY($1::text[]::regclass[]) AND c.relname = ANY($2)";

/// Creates missing partitions. Usually there are none, which costs one look-up. Several processes
/// may call this concurrently. A role that does not own the tables leaves it to `outrider migrate
/// up`.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let wanted = wanted_of(&tables().collect::<Vec<Table>>(), day_of(now).into());
    if missing(connection, &wanted).await?.is_empty() || !may_create(connection).await? {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    for partition in missing(&mut transaction, &wanted).await? {
        for statement in &partition.statements {
            sqlx::raw_sql(AssertSqlSafe(statement.as_str())).execute(&mut *transaction).await?;
        }
        tracing::info!(partition = partition.name, "created a partition");
    }
    transaction.commit().await
}

async fn missing<'a>(
    connection: &mut PgConnection,
    wanted: &'a [Partition],
) -> Result<Vec<&'a Partition>, sqlx::Error> {
    let names: Vec<&str> = wanted.iter().map(|partition| partition.name.as_str()).collect();
    let parents: Vec<&str> = tables().map(|table| table.name).collect();
    let existing: Vec<String> =
        sqlx::query_scalar(EXISTING).bind(parents).bind(names).fetch_all(connection).await?;
    Ok(wanted.iter().filter(|partition| !existing.contains(&partition.name)).collect())
}

/// How far ahead partitions exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// Number of days after today for which every table has a partition, without a gap.
    pub days: i64,
    /// The tables without tomorrow's partition.
    pub missing: Vec<&'static str>,
}

/// Counts the coming days that have partitions. Needs only the right to read the catalog.
pub(crate) async fn ahead(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<Ahead, sqlx::Error> {
    let (tables, today) = (tables().collect::<Vec<Table>>(), i64::from(day_of(now)));
    let wanted = wanted_of(&tables, today);
    let missing = missing(connection, &wanted).await?;
    let lacks = |table: &Table, day: i64| {
        let of_day = of_day(std::slice::from_ref(table), day);
        missing.iter().any(|partition| of_day.contains(partition))
    };
    let is_whole = |ahead: &i64| !tables.iter().any(|table| lacks(table, today + ahead));
    let days = (1..=DAYS_AHEAD).take_while(is_whole).count();
    let missing =
        tables.iter().filter(|table| lacks(table, today + 1)).map(|table| table.name).collect();
    Ok(Ahead { days: i64::try_from(days).unwrap_or(DAYS_AHEAD), missing })
}

/// Whether this role may create and drop partitions. For that it must own the tables.
pub(crate) async fn may_create(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    const MAY_CREATE: &str = "SELECT COALESCE(bool_and(pg_has_role(relowner, 'USAGE') \
            AND has_schema_privilege(relnamespace, 'CREATE')), FALSE) \
        FROM pg_class WHERE oid = ANY($1::text[]::regclass[])";
    let names: Vec<&str> = tables().map(|table| table.name).collect();
    sqlx::query_scalar(MAY_CREATE).bind(names).fetch_one(connection).await
}
