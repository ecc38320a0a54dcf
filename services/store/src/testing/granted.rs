//! A database whose server role only has the rights of docs/operations.md.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::{TestPostgres, options};
use crate::{Store, StoreOptions};

/// The GRANT statements of the documentation, for a role.
pub(crate) fn grants(role: &str) -> Vec<String> {
    let page = include_str!("../../../../docs/operations.md");
    let (_, rest) = page.split_once("## Rights in PostgreSQL").expect("the page lists the rights");
    let (_, block) = rest.split_once("```sql").expect("in a block");
    let (block, _) = block.split_once("```").expect("that ends");
    let statements = block
        .split(';')
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" "));
    statements
        .filter(|statement| !statement.is_empty())
        .map(|statement| statement.replace("TO outrider", &format!("TO {role}")))
        .collect()
}

/// A database that its owner migrated, and a role with the rights of the documentation.
pub(crate) struct Granted {
    pub database: TestPostgres,
    pub role: String,
    pub options: StoreOptions,
}

impl Granted {
    pub async fn new() -> Option<Self> {
        let database = TestPostgres::create().await?;
        let owner = Store::connect(&options(database.url())).await.unwrap();
        owner.migrate_up().await.unwrap();
        let (url, role) = database.role().await;
        let granted = Self { database, options: options(&url), role };
        for grant in grants(&granted.role) {
            granted.execute(&grant).await;
        }
        Some(granted)
    }

    pub async fn execute(&self, statement: &str) {
        let mut owner = PgConnection::connect(self.database.url()).await.unwrap();
        owner
            .execute(AssertSqlSafe(statement))
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub async fn connect(&self) -> Store {
        Store::connect(&self.options).await.unwrap()
    }
}
