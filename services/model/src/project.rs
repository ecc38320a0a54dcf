//! Organisations, projects, and the keys to them.

use std::time::Duration;

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
    pub schema_validation: SchemaValidation,
    /// After so long payloads and answers are erased; none: they are kept as long as the events.
    pub payload_retention: Option<Duration>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What becomes of events that the catalogue of event types speaks against. The numbers are those
/// of `outrider.admin.v1.SchemaValidation` and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum SchemaValidation {
    /// They are accepted; nothing is validated.
    #[default]
    Off = 1,
    /// They are accepted with a warning.
    Warn = 2,
    /// They are refused.
    Reject = 3,
}

impl SchemaValidation {
    /// By its number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Off, Self::Warn, Self::Reject]
            .into_iter()
            .find(|one| i32::from(*one as u8) == number)
    }
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
