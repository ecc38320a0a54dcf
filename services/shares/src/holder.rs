//! The callers that hold shares.

use http::Extensions;
use outrider_model::{OrganizationId, Principal, ProjectId, principal::Actor};
use uuid::Uuid;

/// A caller as shares count it: an API key in a project of an organization.
///
/// A key that is not bound to a project counts with the project that its request names, if that is
/// known. Otherwise it counts with the organization itself, as one more project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The organization.
    pub organization: OrganizationId,
    /// The project. `None` for the organization itself.
    pub project: Option<ProjectId>,
    /// The key.
    pub actor: Actor,
}

impl Holder {
    /// The caller of a request whose project is only known if its key is bound to one.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        let Principal { organization, project, actor, .. } = principal;
        Self { organization: *organization, project: *project, actor: *actor }
    }

    /// The caller of a request with its principal in the extensions. All requests without one count
    /// as a single caller in a separate organization.
    #[must_use]
    pub fn of_request(extensions: &Extensions) -> Self {
        let nobody =
            Self { organization: OrganizationId(Uuid::nil()), project: None, actor: Actor::System };
        extensions.get::<Principal>().map_or(nobody, Self::of)
    }

    /// The caller of a request to this project. The caller's access has been checked.
    #[must_use]
    pub fn within(principal: &Principal, project: ProjectId) -> Self {
        Self { project: Some(project), ..Self::of(principal) }
    }
}
