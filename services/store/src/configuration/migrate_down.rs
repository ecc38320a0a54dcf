//! Takes migrations back. Going back before values were encrypted puts them in plain text first.

use std::collections::HashSet;

use outrider_migrations::Migrator;
use sea_orm::DatabaseTransaction;
use sea_orm_migration::MigratorTrait;

use super::sealing;
use crate::{Failure, Store, connection::schema::not_changed};

impl Store {
    /// Takes the last migrations back, with their data, and returns their names. Values that were
    /// not encrypted before them are put back in plain text.
    pub async fn migrate_down(&self, steps: u32) -> Result<Vec<String>, Failure> {
        let down = async |transaction: &DatabaseTransaction, applied: &HashSet<String>| {
            let later = applied.iter().filter(|step| step.as_str() > sealing::MIGRATION).count();
            if applied.contains(sealing::MIGRATION) && later < steps as usize {
                sealing::unseal(self, transaction).await?;
            }
            Migrator::down(transaction, Some(steps)).await.map_err(not_changed)
        };
        self.migrate(down).await
    }
}
