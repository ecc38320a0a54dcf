//! PgBouncer: with the settings of its package everything works. If transactions change sessions,
//! it is recognized and refused.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{
    Failure, Store,
    testing::{
        PgBouncer, TestPostgres, options,
        renaming::{Draw, Renaming},
        tenant::tenant,
        with,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_pooler_as_it_is_installed_will_do() {
    let Some(database) = TestPostgres::create().await else { return };
    let Some(pooler) = PgBouncer::start(database.url(), "").await else { return };
    let store = Store::connect(&options(pooler.url())).await.unwrap();
    store.migrate_up().await.unwrap();
    store.ready().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    tenant.subscription(&store, &endpoint, "*").await;
    store.ledger().prepare(store.clock().now()).await.unwrap();
    store.ledger().pending_summary(store.clock().now(), 10).await.unwrap();
    assert!(store.audit_turn().await.unwrap().is_some());
    store.close().await;
}

async fn refused(settings: &str) -> Option<Failure> {
    let database = TestPostgres::create().await?;
    let pooler = PgBouncer::start(database.url(), settings).await?;
    // The pooler already has connections, and decides which one a transaction gets.
    let connect: PgConnectOptions = pooler.url().parse().unwrap();
    let busy = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(connect.extra_float_digits(None))
        .await
        .unwrap();
    let together =
        (0..4).map(|_| async { sqlx::raw_sql("SELECT pg_sleep(0.2)").execute(&busy).await });
    for done in futures::future::join_all(together).await {
        done.unwrap();
    }
    let failure = Store::connect(&options(pooler.url())).await.err().expect("sessions are shared");
    Some(failure)
}

#[tokio::test(flavor = "multi_thread")]
async fn poolers_of_transactions_are_refused() {
    for settings in [
        "pool_mode = transaction",
        "pool_mode = transaction\nserver_round_robin = 1",
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = statement",
    ] {
        let Some(failure) = refused(settings).await else { return };
        let text = failure.to_string();
        assert!(text.contains("gives each transaction another session"), "{settings}: {text}");
        assert!(failure.advice().unwrap().contains("pool_mode=session"), "{settings}");
    }
}

/// PgBouncer from 1.21 on supports prepared statements in transactions, so that nothing else would
/// fail.
#[tokio::test(flavor = "multi_thread")]
async fn poolers_of_transactions_that_know_prepared_statements_are_refused() {
    let Some(database) = TestPostgres::create().await else { return };
    let all = [(Draw::Last, 3), (Draw::Longest, 3), (Draw::Last, 1), (Draw::Own, 3)];
    for (draw, sessions) in all {
        let pooler = Renaming::start(database.url(), sessions, draw).await;
        let quick = with(options(pooler.url()), |database| {
            database.acquire_timeout = std::time::Duration::from_secs(5);
        });
        let failure = Store::connect(&quick).await.err().expect("sessions are shared");
        let text = failure.to_string();
        assert!(
            text.contains("gives each transaction another session"),
            "{draw:?} of {sessions}: {text}"
        );
        assert!(failure.advice().unwrap().contains("pool_mode=session"), "{draw:?} of {sessions}");
    }
}

/// The pooler of the test above behaves like its kind: statements work in any session.
#[tokio::test(flavor = "multi_thread")]
async fn through_it_prepared_statements_work_in_every_session() {
    use sqlx::{Connection as _, PgConnection};
    let Some(database) = TestPostgres::create().await else { return };
    let pooler = Renaming::start(database.url(), 3, Draw::Longest).await;
    let mut one = PgConnection::connect(pooler.url()).await.unwrap();
    let mut sessions = std::collections::BTreeSet::new();
    for number in 0..9_i32 {
        let (session, back): (i32, i32) = sqlx::query_as("SELECT pg_backend_pid(), $1::int4")
            .bind(number)
            .fetch_one(&mut one)
            .await
            .unwrap();
        assert_eq!(back, number);
        sessions.insert(session);
    }
    let mut two = PgConnection::connect(pooler.url()).await.unwrap();
    let back: i32 =
        sqlx::query_scalar("SELECT $1::int4 + 1").bind(1_i32).fetch_one(&mut two).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pg_prepared_statements")
        .fetch_all(&mut two)
        .await
        .unwrap();
    assert_eq!((sessions.len(), back), (3, 2));
    assert!(
        names.iter().all(|name| name.starts_with("PGBOUNCER_")) && !names.is_empty(),
        "{names:?}"
    );
}

/// A pool of one session does not mean that sessions are shared.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_too_small_is_told_as_such() {
    let Some(database) = TestPostgres::create().await else { return };
    let Some(pooler) = PgBouncer::start(database.url(), "default_pool_size = 1").await else {
        return;
    };
    let options = with(options(pooler.url()), |database| {
        database.acquire_timeout = std::time::Duration::from_secs(2);
    });
    let failure = Store::connect(&options).await.err().expect("there is one session");
    let text = format!("{failure} {}", failure.advice().unwrap_or_default());
    assert!(
        !text.contains("another session") && text.contains("database.max_connections"),
        "{text}"
    );
}
