//! API keys for a gateway in a process of its own: it asks the roles that read them, and remembers
//! the answers for a moment.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use outrider_model::{ApiKeyId, Error, HashedToken, Principal, Reason, Result, Scope, principal::Actor};
use outrider_proto::internal::{
    KeyPrincipal, ResolveKeyRequest, ResolveKeyResponse, key_service_client::KeyServiceClient, key_service_server::KeyService,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    again::{Again, Calls},
    convert::parse_id,
    internal::{InternalToken, Present},
    status::{from_status, to_status},
};

mod remembered;

pub use remembered::{KeyCacheOptions, RememberedKeys};

/// How long one role may take to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// The error for a key that stands for nobody.
#[must_use]
pub fn invalid() -> Error {
    Error::new(Reason::InvalidCredentials, "the API key is not valid")
}

/// The gRPC face of a role that reads API keys.
pub struct KeyServer(pub Arc<dyn super::Authenticate>);

#[async_trait]
impl KeyService for KeyServer {
    async fn resolve_key(&self, request: Request<ResolveKeyRequest>) -> Result<Response<ResolveKeyResponse>, Status> {
        let token = token(&request.into_inner()).map_err(to_status)?;
        let principal = match self.0.authenticate(&token).await {
            Ok(principal) => Some(to_wire(principal)),
            Err(error) if error.reason == Reason::InvalidCredentials => None,
            Err(error) => return Err(to_status(error)),
        };
        Ok(Response::new(ResolveKeyResponse { principal }))
    }
}

/// Roles in other processes. They are asked one after the other until one can tell.
pub struct RemoteKeys {
    roles: Vec<KeyServiceClient<InterceptedService<Calls, Present>>>,
}

impl RemoteKeys {
    /// Over these channels, presenting the token.
    #[must_use]
    pub fn new(channels: impl IntoIterator<Item = Channel>, token: Option<InternalToken>) -> Self {
        let client = |channel| KeyServiceClient::with_interceptor(Again::new(channel), Present(token.clone()));
        Self { roles: channels.into_iter().map(client).collect() }
    }
}

#[async_trait]
impl super::Authenticate for RemoteKeys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        let mut why = String::new();
        for role in &self.roles {
            let request = ResolveKeyRequest { api_key_id: token.id.to_string(), secret_hash: token.hash.to_vec().into() };
            match timeout(PATIENCE, role.clone().resolve_key(request)).await {
                Ok(Ok(answer)) => return from_wire(token.id, answer.into_inner().principal),
                Ok(Err(status)) => match from_status(&status) {
                    error if error.is_overload() => return Err(error),
                    error => why = error.to_string(),
                },
                Err(_) => why = format!("no answer within {PATIENCE:?}"),
            }
        }
        tracing::warn!(%why, "no role can tell whom an API key stands for");
        Err(Error::unavailable("the API key cannot be checked at the moment"))
    }
}

fn token(request: &ResolveKeyRequest) -> Result<HashedToken> {
    let hash = request.secret_hash.as_ref().try_into().map_err(|_| Error::field("secret_hash", "must be 32 bytes"))?;
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
    let KeyPrincipal { organization_id, project_id, owner_id, scopes } = principal.ok_or_else(invalid)?;
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
