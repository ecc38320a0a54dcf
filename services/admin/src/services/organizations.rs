//! The service for organizations.

use outrider_model::{Principal, Result};
use outrider_proto::admin::{
    GetOrganizationRequest, GetOrganizationResponse, ListOrganizationsRequest,
    ListOrganizationsResponse, UpdateOrganizationRequest, UpdateOrganizationResponse,
    organization_service_server::OrganizationService,
};
use outrider_rpc::{convert::parse_id, page::Pager};

use super::{Services, serve};
use crate::convert::organization as convert;

serve!(OrganizationService {
    get_organization: GetOrganizationRequest -> GetOrganizationResponse;
    list_organizations: ListOrganizationsRequest -> ListOrganizationsResponse;
    update_organization: UpdateOrganizationRequest -> UpdateOrganizationResponse;
});

impl Services {
    async fn get_organization(
        &self,
        principal: &Principal,
        request: GetOrganizationRequest,
    ) -> Result<GetOrganizationResponse> {
        let id = parse_id("organization_id", &request.organization_id)?;
        let organization = self.store.get_organization(principal, id).await?;
        Ok(GetOrganizationResponse { organization: Some(convert::to_wire(organization)) })
    }

    async fn list_organizations(
        &self,
        principal: &Principal,
        request: ListOrganizationsRequest,
    ) -> Result<ListOrganizationsResponse> {
        let pager = Pager::new("ListOrganizations", &[]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_organizations(principal, wanted).await?;
        let (next_page_token, _) = pager.tokens(&page);
        Ok(ListOrganizationsResponse {
            organizations: page.map(convert::to_wire).items,
            next_page_token,
        })
    }

    async fn update_organization(
        &self,
        principal: &Principal,
        request: UpdateOrganizationRequest,
    ) -> Result<UpdateOrganizationResponse> {
        let (id, change) = convert::change(request)?;
        let organization =
            self.store.update_organization(principal, id, move |spec| change.apply(spec)).await?;
        self.announce().await;
        Ok(UpdateOrganizationResponse { organization: Some(convert::to_wire(organization)) })
    }
}
