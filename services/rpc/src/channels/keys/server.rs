//! The gRPC service that resolves API keys.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_model::{Error, HashedToken, Reason, Result};
use outrider_proto::internal::{
    ResolveKeyRequest, ResolveKeyResponse,
    key_service_server::{KeyService, KeyServiceServer},
};
use tonic::{Request, Response, Status};

use super::principal::to_wire;
use crate::{
    guard::auth::Authenticate,
    wire::{convert::parse_id, status::to_status},
};

/// Serves the API keys of a role over gRPC.
pub fn service(keys: Arc<dyn Authenticate>) -> KeyServiceServer<KeyServer> {
    KeyServiceServer::new(KeyServer(keys))
}

/// Converts calls for an authenticator.
pub struct KeyServer(Arc<dyn Authenticate>);

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
