//! Endpoints, including deleted ones.

use std::fmt;

use sea_orm::entity::prelude::*;

#[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "endpoints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub project_id: Uuid,
    pub target_kind: String,
    pub target: String,
    pub description: String,
    pub state: i16,
    pub timeout_micros: i64,
    pub max_in_flight: i32,
    pub headers: String,
    pub metadata: String,
    pub owner: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    pub sealed: Option<Vec<u8>>,
    pub settings: Option<String>,
}

impl fmt::Debug for Model {
    /// Shows only the id, because rows of earlier versions contain credentials in plain text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
