//! The service for endpoints.

use outrider_model::{Error, Principal, Reason, Result, error::Violations};
use outrider_proto::admin::{
    CreateEndpointRequest, CreateEndpointResponse, DeleteEndpointRequest, DeleteEndpointResponse,
    GetEndpointRequest, GetEndpointResponse, GetEndpointSecretRequest, GetEndpointSecretResponse,
    ListEndpointsRequest, ListEndpointsResponse, UpdateEndpointRequest, UpdateEndpointResponse,
    endpoint_service_server::EndpointService,
};
use outrider_rpc::{convert::parse_id, page::Pager};

use super::{Services, serve};
use crate::{convert::endpoint as convert, fields};

serve!(EndpointService {
    create_endpoint: CreateEndpointRequest -> CreateEndpointResponse;
    get_endpoint: GetEndpointRequest -> GetEndpointResponse;
    list_endpoints: ListEndpointsRequest -> ListEndpointsResponse;
    update_endpoint: UpdateEndpointRequest -> UpdateEndpointResponse;
    delete_endpoint: DeleteEndpointRequest -> DeleteEndpointResponse;
    get_endpoint_secret: GetEndpointSecretRequest -> GetEndpointSecretResponse;
});

impl Services {
    async fn create_endpoint(
        &self,
        principal: &Principal,
        request: CreateEndpointRequest,
    ) -> Result<CreateEndpointResponse> {
        let (project, new, request_id) =
            convert::create(&request, &self.policy.get(), || self.random_secret())?;
        let made = new.secret.clone();
        let endpoint = self.store.create_endpoint(principal, project, new, request_id).await?;
        self.announce().await;
        let secret = match request_id {
            None => made,
            // The request may repeat an earlier one, whose endpoint has the earlier secret.
            Some(_) => {
                let stored = self.store.endpoint_secret(principal, project, endpoint.id).await?;
                if convert::gives_secret(&request) && stored.expose() != made.expose() {
                    return Err(Error::new(
                        Reason::IdempotencyConflict,
                        "the request id was used with another secret",
                    ));
                }
                stored
            }
        };
        Ok(CreateEndpointResponse {
            endpoint: Some(convert::to_wire(endpoint)),
            secret: secret.reveal(),
        })
    }

    async fn get_endpoint(
        &self,
        principal: &Principal,
        request: GetEndpointRequest,
    ) -> Result<GetEndpointResponse> {
        let (project, id) =
            fields::project_and("endpoint_id", &request.project_id, &request.endpoint_id)?;
        let endpoint = self.store.get_endpoint(principal, project, id).await?;
        Ok(GetEndpointResponse { endpoint: Some(convert::to_wire(endpoint)) })
    }

    async fn list_endpoints(
        &self,
        principal: &Principal,
        request: ListEndpointsRequest,
    ) -> Result<ListEndpointsResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let mut violations = Violations::new();
        let owner = convert::owner(&mut violations, "owner_id", &request.owner_id);
        violations.finish()?;
        let pager = Pager::new("ListEndpoints", &[&request.project_id, &request.owner_id]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_endpoints(principal, project, owner.as_deref(), wanted).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        Ok(ListEndpointsResponse {
            endpoints: page.map(convert::to_wire).items,
            next_page_token,
            previous_page_token,
        })
    }

    async fn update_endpoint(
        &self,
        principal: &Principal,
        request: UpdateEndpointRequest,
    ) -> Result<UpdateEndpointResponse> {
        let (project, id, change) = convert::change(request, &self.policy.get())?;
        let endpoint = self
            .store
            .update_endpoint(principal, project, id, move |spec| change.apply(spec))
            .await?;
        self.announce().await;
        Ok(UpdateEndpointResponse { endpoint: Some(convert::to_wire(endpoint)) })
    }

    async fn delete_endpoint(
        &self,
        principal: &Principal,
        request: DeleteEndpointRequest,
    ) -> Result<DeleteEndpointResponse> {
        let (project, id) =
            fields::project_and("endpoint_id", &request.project_id, &request.endpoint_id)?;
        self.store.delete_endpoint(principal, project, id).await?;
        self.announce().await;
        Ok(DeleteEndpointResponse {})
    }

    async fn get_endpoint_secret(
        &self,
        principal: &Principal,
        request: GetEndpointSecretRequest,
    ) -> Result<GetEndpointSecretResponse> {
        let (project, id) =
            fields::project_and("endpoint_id", &request.project_id, &request.endpoint_id)?;
        let secret = self.store.endpoint_secret(principal, project, id).await?;
        Ok(GetEndpointSecretResponse { secret: secret.reveal() })
    }
}
