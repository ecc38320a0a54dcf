//! Several hosts in `database.url`, of which one accepts writes.

use std::time::Duration;

use crate::{
    FailureKind, Store, StoreOptions,
    testing::{TestPostgres, options, with},
};

/// The URL with another host before its own.
fn beside(url: &str, other: &str, more: &str) -> String {
    let (user, rest) = url.split_once('@').unwrap();
    format!("{user}@{other},{rest}{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_serves_is_found_behind_one_that_does_not() {
    let Some(database) = TestPostgres::create().await else { return };
    // A port where nobody listens, and one that never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for other in ["127.0.0.1:1".to_owned(), silent.local_addr().unwrap().to_string()] {
        let url = beside(database.url(), &other, "?connect_timeout=1");
        let store = Store::connect(&options(&url)).await.unwrap();
        store.migrate_up().await.unwrap();
        store.ledger().pending_summary(store.clock().now(), 1).await.unwrap();
        let all = (0..4).map(|_| store.current());
        futures::future::join_all(all).await.into_iter().for_each(|current| current.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_no_writes_is_passed_over() {
    let Some(database) = TestPostgres::create().await else { return };
    let name = database.url().rsplit('/').next().unwrap();
    let store = Store::connect(&options(database.url())).await.unwrap();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    sqlx::query(sqlx::AssertSqlSafe(read_only)).execute(store.postgres_pool()).await.unwrap();
    let quick = |url: &str| {
        with(options(url), |database| database.acquire_timeout = Duration::from_secs(1))
    };
    let failure =
        Store::connect(&quick(&beside(database.url(), "127.0.0.1:1", ""))).await.err().unwrap();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    let text = failure.to_string();
    assert!(
        text.contains("it takes no writes") && text.contains("refused"),
        "each host is reported: {text}"
    );
    // It is the primary nevertheless.
    let primary = beside(database.url(), "127.0.0.1:1", "?target_session_attrs=primary");
    Store::connect(&quick(&primary)).await.unwrap();
    let standby = StoreOptions {
        read_only: true,
        ..quick(&format!("{}?target_session_attrs=standby", database.url()))
    };
    assert!(Store::connect(&standby).await.err().unwrap().to_string().contains("it is no standby"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_url_hold_and_the_name_is_its_own() {
    let Some(database) = TestPostgres::create().await else { return };
    let url = format!("{}?options=-c%20work_mem%3D7MB&application_name=mine", database.url());
    let store = Store::connect(&options(&url)).await.unwrap();
    let shown: String = sqlx::query_scalar(
        "SELECT current_setting('work_mem') || current_setting('application_name')",
    )
    .fetch_one(store.postgres_pool())
    .await
    .unwrap();
    assert_eq!(shown, "7MBmine");
}
