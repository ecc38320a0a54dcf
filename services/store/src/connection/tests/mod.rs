//! Connections, on both databases.

mod durability;
mod failures;
mod hosts;
mod poolers;
mod schema;
mod sessions;
mod turns;

use crate::testing::{backends::on_both, tenant::tenant};

on_both! {
    durability::a_commit_is_on_disk;
    schema::goes_up_and_down_and_tells_where_it_is;
    schema::is_migrated_once_by_many_at_once;
    schema::the_clock_goes_with_the_database;
    schema::a_write_that_is_given_up_leaves_nothing_behind;
    turns::changes_of_configuration_go_in_turns;
    turns::projects_that_do_not_exist_are_asked_for_in_turns;
}

/// An in-memory database lives in one connection: nothing may need two at once.
#[tokio::test(flavor = "multi_thread")]
async fn in_memory_sqlite_serves_reads_and_writes() {
    let options = crate::testing::with(crate::testing::options("sqlite::memory:"), |database| {
        database.acquire_timeout = std::time::Duration::from_secs(2);
    });
    let store = crate::Store::connect(&options).await.unwrap();
    store.migrate_up().await.unwrap();
    store.ready().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    tenant.subscription(&store, &endpoint, "*").await;
    let directory = crate::Directory::new(store.clone(), crate::DirectoryOptions::default());
    assert_eq!(directory.router(tenant.project.id).await.unwrap().route("a").len(), 1);
    assert!(directory.endpoint(endpoint.id).await.unwrap().is_some());
    let hooks = (0..20).map(|_| tenant.endpoint(&store));
    assert_eq!(futures::future::join_all(hooks).await.len(), 20);
}

#[tokio::test]
async fn other_urls_and_unreachable_databases_are_errors_that_hide_the_url() {
    for url in [
        "",
        "mysql://x",
        "postgres://u:hunter2@127.0.0.1:1/x",
        "postgres://[",
        "host=h pasword=hunter2",
        "sqlite:///nowhere/at/all.db",
    ] {
        let error = crate::Store::connect(&crate::testing::options(url)).await.err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(
        !format!("{:?}", crate::testing::options("postgres://u:hunter2@h/x")).contains("hunter2")
    );
}
