//! Who is asking. Every call of the store takes a principal.

use crate::{ApiKeyId, Error, OrganizationId, ProjectId, Result, Scope, ScopeSet};

/// The caller, as the shared authentication layer made it from an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organisation; nothing outside it exists for the caller.
    pub organization: OrganizationId,
    /// The one project the key is bound to; all of the organisation's when absent.
    pub project: Option<ProjectId>,
    /// The one owner of endpoints the key is bound to; all when absent.
    pub owner: Option<String>,
    /// Who acts, for the audit trail.
    pub actor: Actor,
    /// What it may do.
    pub scopes: ScopeSet,
}

/// Who acts.
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
    /// The operator, with everything in one organisation.
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

    /// Refuses a project that the key is not bound to, as if it did not exist. That the project
    /// belongs to the organisation is the store's to check.
    pub fn require_project(&self, project: ProjectId) -> Result<()> {
        match self.project {
            Some(own) if own != project => Err(Error::not_found("project")),
            _ => Ok(()),
        }
    }
}
