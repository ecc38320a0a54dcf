//! The service for API keys.

use outrider_model::{Principal, Result, error::Violations};
use outrider_proto::admin::{
    CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, DeleteApiKeyResponse,
    GetApiKeyRequest, GetApiKeyResponse, ListApiKeysRequest, ListApiKeysResponse,
    UpdateApiKeyRequest, UpdateApiKeyResponse, api_key_service_server::ApiKeyService,
};
use outrider_rpc::{convert::parse_id, page::Pager};

use super::{Services, serve};
use crate::{convert::api_key as convert, fields};

serve!(ApiKeyService {
    create_api_key: CreateApiKeyRequest -> CreateApiKeyResponse;
    get_api_key: GetApiKeyRequest -> GetApiKeyResponse;
    list_api_keys: ListApiKeysRequest -> ListApiKeysResponse;
    update_api_key: UpdateApiKeyRequest -> UpdateApiKeyResponse;
    delete_api_key: DeleteApiKeyRequest -> DeleteApiKeyResponse;
});

impl Services {
    /// The token is empty if the request repeats an earlier one, because only its hash is stored.
    async fn create_api_key(
        &self,
        principal: &Principal,
        request: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse> {
        let (new, request_id) = convert::create(&request, principal.organization)?;
        let (key, token) = self.store.create_api_key(principal, new, request_id).await?;
        self.announce().await;
        let token = token.map(|token| token.reveal()).unwrap_or_default();
        Ok(CreateApiKeyResponse { api_key: Some(convert::to_wire(key)), token })
    }

    async fn get_api_key(
        &self,
        principal: &Principal,
        request: GetApiKeyRequest,
    ) -> Result<GetApiKeyResponse> {
        let id = parse_id("api_key_id", &request.api_key_id)?;
        let key = self.store.get_api_key(principal, id).await?;
        Ok(GetApiKeyResponse { api_key: Some(convert::to_wire(key)) })
    }

    async fn list_api_keys(
        &self,
        principal: &Principal,
        request: ListApiKeysRequest,
    ) -> Result<ListApiKeysResponse> {
        let pager = Pager::new("ListApiKeys", &[]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_api_keys(principal, wanted).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        Ok(ListApiKeysResponse {
            api_keys: page.map(convert::to_wire).items,
            next_page_token,
            previous_page_token,
        })
    }

    async fn update_api_key(
        &self,
        principal: &Principal,
        request: UpdateApiKeyRequest,
    ) -> Result<UpdateApiKeyResponse> {
        let project =
            request.api_key.as_ref().map(|given| given.project_id.clone()).unwrap_or_default();
        let (id, change) = convert::change(request, principal.organization)?;
        if !project.is_empty() {
            // The project of a key never changes, so this check needs no transaction.
            let stored = self.store.get_api_key(principal, id).await?;
            let known = stored.fixed.project.map(|project| project.to_string()).unwrap_or_default();
            let mut violations = Violations::new();
            fields::fixed(&mut violations, "api_key.project_id", &project, &known);
            violations.finish()?;
        }
        let key = self.store.update_api_key(principal, id, move |spec| change.apply(spec)).await?;
        self.announce().await;
        Ok(UpdateApiKeyResponse { api_key: Some(convert::to_wire(key)) })
    }

    async fn delete_api_key(
        &self,
        principal: &Principal,
        request: DeleteApiKeyRequest,
    ) -> Result<DeleteApiKeyResponse> {
        let id = parse_id("api_key_id", &request.api_key_id)?;
        self.store.delete_api_key(principal, id).await?;
        self.announce().await;
        Ok(DeleteApiKeyResponse {})
    }
}
