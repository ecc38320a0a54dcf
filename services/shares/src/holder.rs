//! Who holds shares.

use http::Extensions;
use outrider_model::{OrganizationId, Principal, ProjectId, principal::Actor};
use uuid::Uuid;

/// A caller, as shares count it: an API key, in a project, in an organisation.
///
/// A key that is bound to no project counts with the project that its request names, where that is
/// known. Elsewhere it counts with the organisation itself, which is then one more project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The organisation.
    pub organization: OrganizationId,
    /// The project; none for the organisation itself.
    pub project: Option<ProjectId>,
    /// The key.
    pub actor: Actor,
}

impl Holder {
    /// The caller of a request whose project is not known, unless its key is bound to one.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        let Principal { organization, project, actor, .. } = principal;
        Self { organization: *organization, project: *project, actor: *actor }
    }

    /// The caller of a request that bears its principal, if it has one. All others are one caller,
    /// in an organisation of their own.
    #[must_use]
    pub fn of_request(extensions: &Extensions) -> Self {
        let nobody =
            Self { organization: OrganizationId(Uuid::nil()), project: None, actor: Actor::System };
        extensions.get::<Principal>().map_or(nobody, Self::of)
    }

    /// The caller of a request to this project, which the caller has been found to reach.
    #[must_use]
    pub fn within(principal: &Principal, project: ProjectId) -> Self {
        Self { project: Some(project), ..Self::of(principal) }
    }
}
