//! Organisations, projects, and the keys to them.

use crate::{ApiKeyId, OrganizationId, ProjectId, ScopeSet, Timestamp};

/// Who owns projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What keeps the events of one product or environment apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub id: ProjectId,
    pub organization: OrganizationId,
    pub name: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub organization: OrganizationId,
    /// The one project it is bound to.
    pub project: Option<ProjectId>,
    pub name: String,
    pub scopes: ScopeSet,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}
