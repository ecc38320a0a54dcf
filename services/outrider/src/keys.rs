//! Connects the authentication layer to the directory.

use async_trait::async_trait;
use outrider_model::{HashedToken, Principal, Result};
use outrider_rpc::Authenticate;
use outrider_store::Directory;

/// Authenticates API keys with the directory.
pub struct Keys(pub Directory);

#[async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        self.0.principal(token).await
    }
}
