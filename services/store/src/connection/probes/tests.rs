//! The rights that docs/operations.md lists are sufficient, and each of them is needed and probed.

use std::collections::BTreeSet;

use super::{
    tables::{PROBES, Probe},
    work::Work,
};
use crate::{
    FailureKind, Store,
    connection::partitions,
    days::day_of,
    testing::{
        granted::{Granted, grants},
        options,
        tenant::tenant,
    },
};

const ALL: [Work; 4] = [Work::Configuration, Work::Jobs, Work::Deliveries, Work::Intake];

/// `(right, table)` of a statement such as `GRANT SELECT, INSERT ON a, b TO role`.
fn rights(grant: &str) -> Option<BTreeSet<(String, String)>> {
    let (what, rest) = grant.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (tables, _) = rest.split_once(" TO ")?;
    let pairs = what.split(", ").flat_map(|right| {
        tables.split(", ").map(move |table| (right.to_owned(), table.to_owned()))
    });
    (!tables.starts_with("SCHEMA")).then(|| pairs.collect())
}

#[test]
fn the_page_grants_what_is_probed() {
    let granted: BTreeSet<_> =
        grants("outrider").iter().filter_map(|grant| rights(grant)).flatten().collect();
    let mut probed: BTreeSet<(String, String)> = PROBES.iter().flat_map(Probe::rights).collect();
    // Only the bootstrap command creates organizations.
    probed.insert(("INSERT".to_owned(), "organizations".to_owned()));
    let (missing, needless) = (probed.difference(&granted), granted.difference(&probed));
    assert!(
        granted == probed,
        "missing: {:?}; needless: {:?}",
        missing.collect::<Vec<_>>(),
        needless.collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_the_rights_of_the_page_is_refused_nothing() {
    let Some(granted) = Granted::new().await else { return };
    let store = granted.connect().await;
    store.begin(&ALL).await.unwrap();
    store.ready().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    tenant.subscription(&store, &endpoint, "*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_taken_back_is_told_and_found_again() {
    let Some(granted) = Granted::new().await else { return };
    let store = granted.connect().await;
    let listed: BTreeSet<_> =
        grants(&granted.role).iter().filter_map(|grant| rights(grant)).flatten().collect();
    for (right, table) in
        listed.iter().filter(|right| **right != ("INSERT".to_owned(), "organizations".to_owned()))
    {
        granted.execute(&format!("REVOKE {right} ON {table} FROM {}", granted.role)).await;
        let failure = store.begin(&ALL).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        let words = format!("permission denied for table {table} (42501)");
        assert!(failure.to_string().contains(&words), "without {right} on {table}: {failure}");
        granted.execute(&format!("GRANT {right} ON {table} TO {}", granted.role)).await;
        store
            .begin(&ALL)
            .await
            .unwrap_or_else(|failure| panic!("with {right} on {table} again: {failure}"));
    }
}

/// For one table and one whose rows are in partitions: each column counts.
#[tokio::test(flavor = "multi_thread")]
async fn rights_to_columns_are_enough_where_they_cover_the_table() {
    let Some(granted) = Granted::new().await else { return };
    let store = granted.connect().await;
    for (right, table) in [
        ("SELECT", "endpoints"),
        ("INSERT", "endpoints"),
        ("UPDATE", "endpoints"),
        ("UPDATE", "events"),
    ] {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0",
        )
        .bind(table)
        .fetch_all(store.postgres_pool())
        .await
        .unwrap();
        let role = &granted.role;
        granted.execute(&format!("REVOKE {right} ON {table} FROM {role}")).await;
        granted
            .execute(&format!("GRANT {right} ({}) ON {table} TO {role}", columns.join(", ")))
            .await;
        store
            .begin(&ALL)
            .await
            .unwrap_or_else(|failure| panic!("with {right} on each column of {table}: {failure}"));
        for column in &columns {
            granted.execute(&format!("REVOKE {right} ({column}) ON {table} FROM {role}")).await;
            let failure = store.begin(&ALL).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused);
            let words = format!("permission denied for table {table} (42501)");
            assert!(
                failure.to_string().contains(&words),
                "without {right} on {table}.{column}: {failure}"
            );
            granted.execute(&format!("GRANT {right} ({column}) ON {table} TO {role}")).await;
        }
        granted.execute(&format!("GRANT {right} ON {table} TO {role}")).await;
    }
    // The audit locks whole tables so that they are not dropped.
    granted.execute(&format!("REVOKE SELECT ON attempts FROM {}", granted.role)).await;
    let all = "DO $$ DECLARE names text; BEGIN \
        SELECT string_agg(quote_ident(attname), ', ') INTO names FROM pg_attribute \
        WHERE attrelid = 'attempts'::regclass AND attnum > 0; \
        EXECUTE 'GRANT SELECT (' || names || ') ON attempts TO ROLE'; END $$";
    granted.execute(&all.replace("ROLE", &granted.role)).await;
    let failure = store.begin(&ALL).await.unwrap_err().to_string();
    assert!(
        failure.contains("LOCK TABLE ")
            && failure.contains("permission denied for table attempts (42501)"),
        "{failure}"
    );
    assert!(!failure.contains("SELECT FROM attempts"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_refusals_are_listed_and_only_those_of_the_work() {
    let Some(granted) = Granted::new().await else { return };
    granted.execute(&format!("REVOKE INSERT ON events, attempts FROM {}", granted.role)).await;
    let store = granted.connect().await;
    let failure = store.begin(&ALL).await.unwrap_err().to_string();
    assert!(
        failure.contains("INSERT INTO events: ") && failure.contains("INSERT INTO attempts: "),
        "{failure}"
    );
    store.begin(&[Work::Configuration, Work::Jobs]).await.unwrap();
    store.ready().await.unwrap();
}

/// While a process runs, a failing statement makes it probe again, until nothing is refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_later_is_told_until_it_is_granted_again() {
    let Some(granted) = Granted::new().await else { return };
    let store = granted.connect().await;
    store.begin(&ALL).await.unwrap();
    let watched = store.clone();
    let watch = tokio::spawn(async move { watched.watch().await });
    granted.execute(&format!("REVOKE SELECT ON pending_deliveries FROM {}", granted.role)).await;
    let now = store.clock().now();
    let failure = store.ledger().pending_summary(now, 10).await.unwrap_err().to_string();
    assert!(
        failure.ends_with("permission denied for table pending_deliveries (42501)"),
        "{failure}"
    );
    wait("it is reported", async || {
        store.ready().await.is_err_and(|failure| {
            failure.to_string().contains("permission denied for table pending_deliveries")
        })
    })
    .await;
    granted.execute(&format!("GRANT SELECT ON pending_deliveries TO {}", granted.role)).await;
    wait("it is found again", async || store.ready().await.is_ok()).await;
    watch.abort();
}

async fn wait(what: &str, is_so: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !is_so().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not within 30 s"));
}

/// A process waits for a database that accepts no writes: it may become the primary again.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_unready_and_no_end() {
    let Some(granted) = Granted::new().await else { return };
    granted
        .execute(&format!("ALTER ROLE {} SET default_transaction_read_only = on", granted.role))
        .await;
    let store = granted.connect().await;
    store.begin(&ALL).await.unwrap();
    let failure = store.ready().await.unwrap_err().to_string();
    assert!(failure.contains("INSERT INTO events: ") && failure.contains("(25006)"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tomorrows_partition_of_any_table_intake_is_unready() {
    let Some(granted) = Granted::new().await else { return };
    let (store, owner) =
        (granted.connect().await, Store::connect(&options(granted.database.url())).await.unwrap());
    let now = store.clock().now();
    for table in outrider_migrations::partitions::tables() {
        store.begin(&[Work::Intake]).await.unwrap();
        store.ready().await.unwrap();
        let tomorrow = i64::from(day_of(now)) + 1;
        let name = outrider_migrations::partitions::of_day(&[table], tomorrow).remove(0).name;
        granted.execute(&format!("DROP TABLE {name}")).await;
        let failure = store.ready().await.unwrap_err();
        assert!(
            failure.to_string().ends_with(&format!("is missing of {}", table.name)),
            "{failure}"
        );
        assert!(failure.advice().unwrap().contains("outrider migrate up"));
        store.begin(&[Work::Configuration, Work::Jobs]).await.unwrap();
        store.ready().await.unwrap();
        // Only the owner can create it, not the role.
        store.ledger().prepare(now).await.unwrap();
        let mut connection = store.postgres_pool().acquire().await.unwrap();
        assert_eq!(partitions::ahead(&mut connection, now).await.unwrap().days, 0);
        owner.ledger().prepare(now).await.unwrap();
        assert_eq!(partitions::ahead(&mut connection, now).await.unwrap().days, 7);
    }
}
