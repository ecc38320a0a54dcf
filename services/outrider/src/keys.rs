//! The directory as the authentication layer sees it.

use async_trait::async_trait;
use outrider_model::{HashedToken, Principal, Result};
use outrider_rpc::Authenticate;
use outrider_store::Directory;

/// Authenticates by the directory.
pub struct Keys(pub Directory);

#[async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, token: &HashedToken) -> Result<Principal> {
        self.0.principal(token).await
    }
}
