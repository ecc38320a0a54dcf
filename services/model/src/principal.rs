//! The caller of a request. Every call of the store takes a principal.

use crate::{ApiKeyId, Error, OrganizationId, ProjectId, Result, Scope, ScopeSet};

/// The caller, derived from an API key by the shared authentication layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organization. Nothing outside it exists for the caller.
    pub organization: OrganizationId,
    /// The project that the key is bound to. `None` for all projects of the organization.
    pub project: Option<ProjectId>,
    /// The owner of endpoints that the key is bound to. `None` for all owners.
    pub owner: Option<String>,
    /// The actor, for the audit trail.
    pub actor: Actor,
    /// The permissions.
    pub scopes: ScopeSet,
}

/// The actor of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// An API key.
    ApiKey(ApiKeyId),
    /// The operator at the command line, or Outrider itself.
    System,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ApiKey(id) => id.fmt(f),
            Self::System => f.write_str("system"),
        }
    }
}

impl Principal {
    /// Returns the operator, with access to everything in one organization.
    #[must_use]
    pub fn system(organization: OrganizationId) -> Self {
        Self {
            organization,
            project: None,
            owner: None,
            actor: Actor::System,
            scopes: [Scope::Admin].into_iter().collect(),
        }
    }

    /// Refuses a project that the key is not bound to, as if it did not exist. The store checks
    /// that the project belongs to the organization.
    pub fn require_project(&self, project: ProjectId) -> Result<()> {
        match self.project {
            Some(own) if own != project => Err(Error::not_found("project")),
            _ => Ok(()),
        }
    }
}
