//! What only PostgreSQL does: concurrent transactions, and compression.

use std::time::Duration;

use outrider_model::Timestamp;

use super::{accept, feed::OVERDUE};
use crate::{
    LogKind, connection::store::LedgerPool, history::ledger::keys, ledger::Accepted,
    testing::world::World,
};

/// The first transaction to begin is the last to commit. A reader that relied on positions alone
/// would skip it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_reverse_order_are_read_in_order_and_once() {
    let Some(world) = World::postgres().await else { return };
    let pool = world.store.postgres_pool();
    let events = [world.event_at(world.now), world.event_at(world.now)];
    let mut place = world.store.log_end(world.holder()).await.unwrap();
    let mut seen = Vec::new();
    let mut read = async || {
        let page = world
            .store
            .read_log(world.holder(), LogKind::Events, world.project, place, 10)
            .await
            .unwrap();
        place = page.next;
        seen.extend(page.entries.iter().map(|entry| entry.id));
        seen.len()
    };
    let (mut first, mut second) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    accept::write(&mut first, &events[..1], &[], world.keys_since()).await.unwrap();
    accept::write(&mut second, &events[1..], &[], world.keys_since()).await.unwrap();
    assert_eq!(read().await, 0);
    second.commit().await.unwrap();
    assert_eq!(read().await, 0, "the first may still come before it");
    first.commit().await.unwrap();
    world.caught_up().await;
    assert_eq!(read().await, 2);
    assert_eq!(read().await, 2);
    assert_eq!(seen, events.map(|new| new.event.id.0));
    assert_eq!(world.rows("commit_log").await, 2);
}

/// The event arrived before midnight and was committed after it. Its repetition arrived after
/// midnight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_waited_past_midnight_is_held_on_both_sides() {
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let Some(world) = World::postgres().await else { return };
    let day = Duration::from_secs(86_400);
    let midnight = Timestamp(world.now.plus(day * 2).0 / 86_400_000_000 * 86_400_000_000);
    let [before, after] =
        [midnight.minus(Duration::from_secs(11)), midnight.plus(Duration::from_secs(11))];
    let first = [world.keyed(before, "order-1", 1)];
    let second = [world.keyed(after, "order-1", 1)];
    let mut transaction = world.store.postgres_pool().begin().await.unwrap();
    let claims = keys::claims(&first, after).unwrap();
    let won = accept::write(&mut transaction, &first, &claims, before.minus(day)).await.unwrap();
    assert_eq!(won[&first[0].event.id], 2);
    let repeated = world.ledger.accept(&second, before.minus(day));
    let committed = async {
        while world.number(WAITING).await == 0 {
            tokio::task::yield_now().await;
        }
        transaction.commit().await.unwrap();
    };
    let committed = tokio::time::timeout(Duration::from_secs(20), committed);
    let (repeated, committed) = tokio::join!(repeated, committed);
    committed.expect("it waits for the holder of its key");
    let duplicate =
        Accepted::Duplicate { event: first[0].event.id, delivery_count: 1, created_at: before };
    assert_eq!(repeated.unwrap(), [duplicate]);
}

/// Debian's servers have lz4. A server without it compresses by its default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_are_compressed_by_the_faster_method() {
    let Some(world) = World::postgres().await else { return };
    let has = "SELECT count(*) FROM pg_settings WHERE name = 'default_toast_compression' \
        AND 'lz4' = ANY (enumvals)";
    let has = world.number(has).await;
    let mut event = world.event_at(world.now);
    event.payload = "\"always the same\"".repeat(1_000).into();
    world.ledger.accept(&[event], world.keys_since()).await.unwrap();
    assert_eq!(
        world
            .number("SELECT count(*) FROM events WHERE pg_column_compression(payload) = 'lz4'")
            .await,
        has
    );
}

/// A session that was given up within a transaction would make the next work a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_work_was_not_seen_to_its_end_is_not_used_again() {
    let Some(world) = World::postgres().await else { return };
    let LedgerPool::Postgres(sessions) = world.store.ledger_pool() else {
        panic!("another database")
    };
    let ask = async |sql: &'static str| {
        let asked = async |session: &mut sqlx::PgConnection| {
            sqlx::query_scalar(sql).fetch_one(session).await
        };
        sessions
            .take()
            .await
            .unwrap()
            .carry_out(asked, |error| matches!(error, sqlx::Error::Database(_)))
            .await
    };
    const ID: &str = "SELECT pg_backend_pid()";
    let first: i32 = ask(ID).await.unwrap();
    assert!(ask("SELECT 1 / 0").await.is_err());
    assert_eq!(ask(ID).await.unwrap(), first, "it is sound after a refusal");
    let begun = async |session: &mut sqlx::PgConnection| {
        sqlx::query("BEGIN").execute(session).await?;
        std::future::pending::<Result<(), sqlx::Error>>().await
    };
    let work = sessions.take().await.unwrap().carry_out(begun, |_| true);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), work).await.is_err());
    assert_ne!(ask(ID).await.unwrap(), first);
}

/// Index entries of ended deliveries stay while a transaction may still see them. A call that
/// starts where the last one ended does not read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_of_another_does_not_make_looking_for_overdue_deliveries_dear() {
    const ROWS: i64 = 20_000;
    let Some(world) = World::postgres().await else { return };
    let pool = world.store.postgres_pool();
    let mut long = pool.begin().await.unwrap();
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events")
        .execute(&mut *long)
        .await
        .unwrap();
    let id = uuid::Uuid::nil();
    let fill = format!(
        "INSERT INTO pending_deliveries SELECT gen_random_uuid(), '{id}', '{id}', 'a', '{id}', '', \
            0, 1, n, 7, 1, n, NULL, 0
         FROM generate_series(1, {ROWS}) n"
    );
    world.execute(&fill).await;
    world.execute(&format!("DELETE FROM pending_deliveries WHERE check_at < {ROWS}")).await;
    let LedgerPool::Postgres(sessions) = world.store.ledger_pool() else {
        panic!("another database")
    };
    let pages = async |after: i64| {
        let explain =
            sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {OVERDUE}"));
        let look = sqlx::query_scalar(explain).bind(after).bind(ROWS).bind(1_000_i64);
        let looked = async |session: &mut sqlx::PgConnection| look.fetch_one(session).await;
        let plan: Result<serde_json::Value, sqlx::Error> =
            sessions.take().await.unwrap().carry_out(looked, |_| false).await;
        let plan = &plan.unwrap()[0]["Plan"];
        assert_eq!(plan["Actual Rows"].as_f64(), Some(1.0), "{plan}");
        plan["Shared Hit Blocks"].as_u64().unwrap() + plan["Shared Read Blocks"].as_u64().unwrap()
    };
    let (all, last) = (pages(0).await, pages(ROWS - 100).await);
    assert!(last * 10 < all, "{last} pages of {all}");
    long.rollback().await.unwrap();
}

/// The same for the connections for queries, which the driver's pool keeps. Sound ones are used
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_returned_in_a_transaction_is_not_used_again() {
    const ID: &str = "SELECT pg_backend_pid()";
    let Some(world) = World::postgres().await else { return };
    let pool = world.store.postgres_pool();
    let lives = async |id: i32| {
        world.number(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {id}")).await == 1
    };
    let mut sound = pool.acquire().await.unwrap();
    let id: i32 = sqlx::query_scalar(ID).fetch_one(&mut *sound).await.unwrap();
    sound.return_to_pool().await;
    assert!(lives(id).await);
    let mut begun = pool.acquire().await.unwrap();
    let id: i32 = sqlx::query_scalar(ID).fetch_one(&mut *begun).await.unwrap();
    // The driver does not know about the transaction, as if the call was given up.
    sqlx::raw_sql("BEGIN").execute(&mut *begun).await.unwrap();
    begun.return_to_pool().await;
    let closed = async || {
        while lives(id).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), closed()).await.expect("it is closed");
}
