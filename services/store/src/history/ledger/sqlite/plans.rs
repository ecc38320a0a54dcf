//! Statements that look rows up by keys use the index of these keys: they scan no table and no
//! other index.

use sqlx::Row;

use super::{accept, end, feed, settle};
use crate::{connection::store::LedgerPool, history::chunked::Chunked, testing::world::World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_search_for_their_rows() {
    let world = World::sqlite().await;
    let LedgerPool::Sqlite { write, .. } = world.store.ledger_pool() else {
        panic!("another database")
    };
    let chunked: [&Chunked; 10] = [
        &accept::EXISTING_EVENTS,
        &settle::RECORDED,
        &settle::FIND,
        &settle::UPDATE,
        &end::DELETE_PENDING,
        &feed::MARK,
        &feed::UNQUEUE,
        &feed::EXTEND,
        &feed::CURRENT,
        &feed::PAYLOADS,
    ];
    let single = [accept::HOLDER, feed::DUE, feed::OVERDUE, end::OF_ENDPOINT, end::OF_PROJECT];
    for text in chunked.iter().flat_map(|statement| statement.texts()).chain(single) {
        let explain = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
        let mut reached = false;
        for row in explain.fetch_all(write).await.unwrap() {
            let step: String = row.get("detail");
            let given =
                ["SCAN v", "VALUES CLAUSE", "CONSTANT ROW"].iter().any(|rows| step.contains(rows));
            assert!(!step.starts_with("SCAN") || given, "{step}\n{text}");
            reached |= step.starts_with("SEARCH");
        }
        assert!(reached, "{text}");
    }
}
