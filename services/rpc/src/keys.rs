//! API keys for a gateway in a process of its own: it asks the roles that read them, and remembers
//! the answers for a moment.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{
    ApiKeyId, Error, HashedToken, Principal, Reason, Result, Scope, principal::Actor,
};
use outrider_proto::internal::{
    KeyPrincipal, ResolveKeyRequest, ResolveKeyResponse, key_service_server::KeyService,
};
use tonic::{Request, Response, Status};

use crate::{convert::parse_id, status::to_status};

mod remembered;
mod remote;

pub use remembered::{KeyCacheOptions, RememberedKeys};
pub use remote::RemoteKeys;

/// The error for a key that stands for nobody.
#[must_use]
pub fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

/// The gRPC face of a role that reads API keys.
pub struct KeyServer(pub Arc<dyn super::Authenticate>);

#[async_trait]
impl KeyService for KeyServer {
    async fn resolve_key(
        &self,
        request: Request<ResolveKeyRequest>,
    ) -> Result<Response<ResolveKeyResponse>, Status> {
        let token = token(&request.into_inner()).map_err(to_status)?;
        let principal = match self.0.authenticate(&token).await {
            Ok(principal) => Some(to_wire(principal)),
            Err(error) if error.reason == Reason::InvalidCredentials => None,
            Err(error) => return Err(to_status(error)),
        };
        Ok(Response::new(ResolveKeyResponse { principal }))
    }
}

fn token(request: &ResolveKeyRequest) -> Result<HashedToken> {
    let hash = request
        .secret_hash
        .as_ref()
        .try_into()
        .map_err(|_| Error::field("secret_hash", "must be 32 bytes"))?;
    Ok(HashedToken { id: parse_id("api_key_id", &request.api_key_id)?, hash })
}

fn to_wire(principal: Principal) -> KeyPrincipal {
    KeyPrincipal {
        organization_id: principal.organization.to_string(),
        project_id: principal.project.map(|project| project.to_string()).unwrap_or_default(),
        owner_id: principal.owner,
        scopes: principal.scopes.iter().map(|scope| scope as i32).collect(),
    }
}

/// Scopes that this version does not know permit nothing here.
fn from_wire(id: ApiKeyId, principal: Option<KeyPrincipal>) -> Result<Principal> {
    let KeyPrincipal { organization_id, project_id, owner_id, scopes } =
        principal.ok_or_else(invalid)?;
    let malformed = |_| Error::unavailable("the answer about an API key does not make sense");
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

#[cfg(test)]
mod tests;
