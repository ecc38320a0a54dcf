//! The failures that operators' commands report.

use std::time::{Duration, Instant};

use crate::{
    Failure, FailureKind, Store, StoreOptions,
    testing::{TestPostgres, options, with, with_database},
};

async fn refused(options: &StoreOptions) -> Failure {
    let failure = Store::connect(options).await.err().expect("it is refused");
    assert!(!failure.to_string().contains("hunter2"), "{failure}");
    failure
}

/// Asserts that the failure and its advice contain each of these words.
fn assert_reports(failure: &Failure, kind: FailureKind, words: &[&str]) {
    let text = format!("{failure}\n{}", failure.advice().unwrap_or_default());
    assert_eq!(failure.kind, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told() {
    let options = with(options("postgres://u:hunter2@127.0.0.1:1/x"), |database| {
        database.acquire_timeout = Duration::from_millis(500);
    });
    let begin = Instant::now();
    let failure = refused(&options).await;
    assert_reports(
        &failure,
        FailureKind::Unreachable,
        &["127.0.0.1:1 as u, database x", "refused", "database.url"],
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_host_that_says_nothing_is_told() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:hunter2@{}/x", silent.local_addr().unwrap());
    let options = with(options(&url), |database| {
        database.acquire_timeout = Duration::from_millis(300);
    });
    assert_reports(
        &refused(&options).await,
        FailureKind::Unreachable,
        &["no answer within 300 ms", "database.acquire_timeout"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_quoted() {
    let Some(database) = TestPostgres::create().await else { return };
    let nowhere = refused(&options(&with_database(database.url(), "no_such_database"))).await;
    assert_reports(
        &nowhere,
        FailureKind::Refused,
        &["\"no_such_database\" does not exist (3D000)", "CREATE DATABASE"],
    );
    let host = database.url().split_once('@').unwrap().1;
    let nobody = refused(&options(&format!("postgres://no_such_role:hunter2@{host}"))).await;
    assert_reports(
        &nobody,
        FailureKind::Refused,
        &["role \"no_such_role\" does not exist (28000)", "pg_hba.conf"],
    );
    let (url, _) = database.role().await;
    let outsider = Store::connect(&options(&url)).await.unwrap();
    let failure = outsider.migrate_up().await.unwrap_err();
    assert_reports(
        &failure,
        FailureKind::Refused,
        &["the schema was not changed", "permission denied for schema public (42501)", "owner"],
    );
    let failure = outsider.current().await.unwrap_err();
    assert_reports(&failure, FailureKind::Schema, &["m0001_", "outrider migrate up"]);
}

#[tokio::test]
async fn a_file_that_is_none_of_sqlite_is_told() {
    let missing = refused(&options("sqlite:///nowhere/at/all.db")).await;
    assert_reports(
        &missing,
        FailureKind::Refused,
        &["unable to open database file (14)", "directory"],
    );
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("text.db");
    std::fs::write(
        &path,
        "this is a text and no database at all, whatever its name may promise ".repeat(40),
    )
    .unwrap();
    let text = refused(&options(&format!("sqlite://{}", path.display()))).await;
    assert_reports(&text, FailureKind::Refused, &["file is not a database (26)"]);
}
