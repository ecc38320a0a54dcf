//! A commit is on disk, whatever the settings of the server.

use crate::{connection::store::LedgerPool, testing::TestDatabase};

async fn show(session: &mut sqlx::PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SHOW synchronous_commit").fetch_one(session).await
}

pub async fn a_commit_is_on_disk(database: &TestDatabase) {
    let store = database.store().await;
    let LedgerPool::Sqlite { write, .. } = store.ledger_pool() else {
        for (set, expected) in [("off", "on"), ("remote_apply", "remote_apply")] {
            let name: String = sqlx::query_scalar("SELECT current_database()::text")
                .fetch_one(store.postgres_pool())
                .await
                .unwrap();
            let alter = format!("ALTER DATABASE {name} SET synchronous_commit = {set}");
            sqlx::query(sqlx::AssertSqlSafe(alter)).execute(store.postgres_pool()).await.unwrap();
            let store = database.connect().await;
            let LedgerPool::Postgres(hot) = store.ledger_pool() else { panic!("another database") };
            let told: [String; 2] = [
                hot.take().await.unwrap().carry_out(show, |_| true).await.unwrap(),
                show(&mut store.postgres_pool().acquire().await.unwrap()).await.unwrap(),
            ];
            assert_eq!(told, [expected; 2], "the server says {set}");
        }
        return;
    };
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(write).await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(write).await.unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"), "FULL: every commit is synced");
}
