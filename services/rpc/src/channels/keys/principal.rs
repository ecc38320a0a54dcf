//! Principals of API keys on the wire.

use outrider_model::{ApiKeyId, Error, Principal, Reason, Result, Scope, principal::Actor};
use outrider_proto::internal::KeyPrincipal;

use crate::wire::convert::parse_id;

/// Returns the error for a key that has no principal.
#[must_use]
pub fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

pub(super) fn to_wire(principal: Principal) -> KeyPrincipal {
    KeyPrincipal {
        organization_id: principal.organization.to_string(),
        project_id: principal.project.map(|project| project.to_string()).unwrap_or_default(),
        owner_id: principal.owner,
        scopes: principal.scopes.iter().map(|scope| scope as i32).collect(),
    }
}

/// Converts an answer. Scopes that this version does not know are dropped.
pub(super) fn from_wire(id: ApiKeyId, principal: Option<KeyPrincipal>) -> Result<Principal> {
    let KeyPrincipal { organization_id, project_id, owner_id, scopes } =
        principal.ok_or_else(invalid)?;
    let malformed = |_| Error::unavailable("the answer about an API key is malformed");
    Ok(Principal {
        organization: parse_id("organization_id", &organization_id).map_err(malformed)?,
        project: match project_id.as_str() {
            "" => None,
            id => Some(parse_id("project_id", id).map_err(malformed)?),
        },
        owner: owner_id,
        actor: Actor::ApiKey(id),
        scopes: scopes.into_iter().filter_map(Scope::from_number).collect(),
    })
}
