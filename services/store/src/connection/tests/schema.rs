use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    FailureKind,
    testing::{TestDatabase, tenant::*},
};

pub async fn goes_up_and_down_and_tells_where_it_is(database: &TestDatabase) {
    let store = database.connect().await;
    assert_eq!(store.ready().await.unwrap_err().kind, FailureKind::Schema);
    let steps = store.migration_status().await.unwrap();
    assert!(steps.len() >= 2 && steps.iter().all(|step| !step.applied), "{steps:?}");
    store.migrate_up().await.unwrap();
    store.migrate_up().await.unwrap();
    store.ready().await.unwrap();
    tenant(&store, "a").await;
    let count = u32::try_from(steps.len()).unwrap();
    store.migrate_down(count).await.unwrap();
    assert_eq!(store.ready().await.unwrap_err().kind, FailureKind::Schema);
    store.migrate_up().await.unwrap();
    store.ready().await.unwrap();
    assert!(store.changes(0, 10).await.unwrap().is_empty());
}

pub async fn is_migrated_once_by_many_at_once(database: &TestDatabase) {
    let tasks = (0..4).map(|_| async {
        let store = database.connect().await;
        store.migrate_up().await
    });
    for outcome in futures::future::join_all(tasks).await {
        outcome.unwrap();
    }
    database.connect().await.ready().await.unwrap();
}

pub async fn the_clock_goes_with_the_database(database: &TestDatabase) {
    let store = database.connect().await;
    // The database is on this host, so its clock is that of the host.
    let host =
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let told = store.clock().now();
    assert!((told.0 - host).abs() < 1_000_000, "{told:?} {host}");
    let later = store.clock().now();
    assert!(later >= told && later.since(told) < Duration::from_secs(5));
    store.clock().measure().await.unwrap();
    assert!(store.clock().now().since(told) < Duration::from_secs(10));
}

pub async fn a_write_that_is_given_up_leaves_nothing_behind(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    for micros in (0..6_000).step_by(150) {
        let create =
            store.create_endpoint(&tenant.principal, tenant.project.id, new_endpoint(), None);
        let _ = tokio::time::timeout(Duration::from_micros(micros), create).await;
    }
    tenant.endpoint(&store).await;
    let endpoints = store
        .list_endpoints(&tenant.principal, tenant.project.id, None, first_page(100))
        .await
        .unwrap()
        .items
        .len();
    let changes = store.changes(0, 1_000).await.unwrap();
    let last = i64::try_from(changes.len()).unwrap();
    assert_eq!((changes.len(), changes.last().unwrap().seq), (2 + endpoints, last));
}
