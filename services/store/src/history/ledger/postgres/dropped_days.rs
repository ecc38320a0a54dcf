//! Reports of attempts whose day has been dropped.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::{days::day_of, ledger::Settled};

/// Whether the delivery of an attempt is from an earlier day than its report. That day may have
/// been dropped.
pub(super) fn is_old(settled: &Settled) -> bool {
    settled.record.is_some() && day_of(settled.delivery.time()) < day_of(settled.at)
}

/// The same reports without attempts of dropped days. A report may come that late if another one
/// ended its delivery and the day was dropped since. None if there is no such attempt.
pub(super) async fn without_dropped(
    connection: &mut PgConnection,
    batch: &[Settled],
) -> Result<Option<Vec<Settled>>, sqlx::Error> {
    const DAYS: &str = "SELECT to_date(right(c.relname::text, 8), 'YYYYMMDD') - DATE '1970-01-01'
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '_p[0-9]{8}$'";
    let kept: HashSet<i32> =
        sqlx::query_scalar(DAYS).fetch_all(connection).await?.into_iter().collect();
    let is_dropped =
        |settled: &Settled| is_old(settled) && !kept.contains(&day_of(settled.delivery.time()));
    if !batch.iter().any(is_dropped) {
        return Ok(None);
    }
    let mut rest = batch.to_vec();
    for settled in rest.iter_mut().filter(|settled| is_dropped(settled)) {
        tracing::warn!(
            delivery_id = %settled.delivery,
            "an attempt is not recorded, because its day is no longer kept"
        );
        settled.record = None;
    }
    Ok(Some(rest))
}
