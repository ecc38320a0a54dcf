//! Sessions of PostgreSQL have the settings that statements rely on, whatever the settings of the
//! database and the role.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{
    Store,
    connection::settings::RELIED_ON,
    connection::store::LedgerPool,
    testing::{TestDatabase, TestPostgres, options, with_database},
};

/// Another value for each setting.
const OTHERS: [(&str, &str); 9] = [
    ("default_transaction_isolation", "'repeatable read'"),
    ("lock_timeout", "1000"),
    ("idle_session_timeout", "1000"),
    ("idle_in_transaction_session_timeout", "5000"),
    ("TimeZone", "'Asia/Tokyo'"),
    ("DateStyle", "'German'"),
    ("IntervalStyle", "'iso_8601'"),
    ("bytea_output", "'escape'"),
    ("standard_conforming_strings", "off"),
];

async fn shown(session: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let shown: Vec<String> =
        RELIED_ON.iter().map(|(name, _)| format!("current_setting('{name}')")).collect();
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT UNNEST(ARRAY[{}])", shown.join(", "))))
        .fetch_all(session)
        .await
}

async fn execute(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection
        .execute(AssertSqlSafe(statement))
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_databases_and_roles_do_not_hold() {
    let Some(database) = TestPostgres::create().await else { return };
    let (url, role) = database.role().await;
    let name = database.url().rsplit('/').next().unwrap();
    for (index, (setting, value)) in OTHERS.iter().enumerate() {
        let whose =
            if index % 2 == 0 { format!("ROLE {role}") } else { format!("DATABASE {name}") };
        execute(database.url(), &format!("ALTER {whose} SET {setting} = {value}")).await;
    }
    let mut plain = PgConnection::connect(&url).await.unwrap();
    let before = shown(&mut plain).await.unwrap();
    let store = Store::connect(&options(&url)).await.unwrap();
    let LedgerPool::Postgres(ledger) = store.ledger_pool() else { panic!("another database") };
    let sessions = [
        shown(&mut store.postgres_pool().acquire().await.unwrap()).await.unwrap(),
        ledger.take().await.unwrap().carry_out(shown, |_| true).await.unwrap(),
    ];
    for (index, (setting, value)) in RELIED_ON.iter().enumerate() {
        for session in &sessions {
            let expected = if *value == "30000" { "30s" } else { value };
            assert_eq!(session[index], expected, "{setting}");
        }
    }
    assert!(
        before.contains(&"repeatable read".to_owned()),
        "the server has no such setting: {before:?}"
    );
}

/// Partitions are created in the schema of their tables, even if another schema comes first in the
/// role's search path.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_where_they_were_made() {
    let Some(database) = TestDatabase::postgres().await else { return };
    database.store().await;
    database.execute("CREATE SCHEMA outrider; CREATE TABLE outrider.events (mine int)").await;
    let url = database.options().database.url.clone();
    let name = url.rsplit('/').next().unwrap().to_owned();
    execute(&url, &format!("ALTER DATABASE {name} SET search_path = outrider, public")).await;
    let store = database.connect().await;
    store.current().await.unwrap();
    let later = store.clock().now().plus(std::time::Duration::from_secs(20 * 86_400));
    store.ledger().prepare(later).await.unwrap();
    const ELSEWHERE: &str = "SELECT count(*) FROM pg_class c \
        JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = 'outrider' AND c.relname LIKE '%\\_p2%'";
    let elsewhere: i64 =
        sqlx::query_scalar(ELSEWHERE).fetch_one(store.postgres_pool()).await.unwrap();
    assert_eq!(elsewhere, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_told_with_all_that_is_wrong() {
    let Some(database) = TestPostgres::create().await else { return };
    let name = format!("{}_latin", database.url().rsplit('/').next().unwrap());
    execute(
        database.url(),
        &format!(
            "CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 \
        LC_COLLATE 'C' LC_CTYPE 'C'"
        ),
    )
    .await;
    execute(database.url(), &format!("ALTER DATABASE {name} SET search_path = 'nowhere'")).await;
    let failure = Store::connect(&options(&with_database(database.url(), &name)))
        .await
        .err()
        .unwrap()
        .to_string();
    execute(database.url(), &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    assert!(failure.contains("encoding LATIN1") && failure.contains("search_path"), "{failure}");
}
