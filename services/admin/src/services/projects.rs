//! The service for projects.

use outrider_model::{Principal, Result};
use outrider_proto::admin::{
    CreateProjectRequest, CreateProjectResponse, DeleteProjectRequest, DeleteProjectResponse,
    GetProjectRequest, GetProjectResponse, ListProjectsRequest, ListProjectsResponse,
    UpdateProjectRequest, UpdateProjectResponse, project_service_server::ProjectService,
};
use outrider_rpc::{convert::parse_id, page::Pager};

use super::{Services, serve};
use crate::convert::project as convert;

serve!(ProjectService {
    create_project: CreateProjectRequest -> CreateProjectResponse;
    get_project: GetProjectRequest -> GetProjectResponse;
    list_projects: ListProjectsRequest -> ListProjectsResponse;
    update_project: UpdateProjectRequest -> UpdateProjectResponse;
    delete_project: DeleteProjectRequest -> DeleteProjectResponse;
});

impl Services {
    async fn create_project(
        &self,
        principal: &Principal,
        request: CreateProjectRequest,
    ) -> Result<CreateProjectResponse> {
        let (new, request_id) = convert::create(&request, principal.organization)?;
        let project = self.store.create_project(principal, new, request_id).await?;
        self.announce().await;
        Ok(CreateProjectResponse { project: Some(convert::to_wire(project)) })
    }

    async fn get_project(
        &self,
        principal: &Principal,
        request: GetProjectRequest,
    ) -> Result<GetProjectResponse> {
        let id = parse_id("project_id", &request.project_id)?;
        let project = self.store.get_project(principal, id).await?;
        Ok(GetProjectResponse { project: Some(convert::to_wire(project)) })
    }

    async fn list_projects(
        &self,
        principal: &Principal,
        request: ListProjectsRequest,
    ) -> Result<ListProjectsResponse> {
        let pager = Pager::new("ListProjects", &[]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_projects(principal, wanted).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        Ok(ListProjectsResponse {
            projects: page.map(convert::to_wire).items,
            next_page_token,
            previous_page_token,
        })
    }

    async fn update_project(
        &self,
        principal: &Principal,
        request: UpdateProjectRequest,
    ) -> Result<UpdateProjectResponse> {
        let (id, change) = convert::change(request, principal.organization)?;
        let project =
            self.store.update_project(principal, id, move |spec| change.apply(spec)).await?;
        self.announce().await;
        Ok(UpdateProjectResponse { project: Some(convert::to_wire(project)) })
    }

    async fn delete_project(
        &self,
        principal: &Principal,
        request: DeleteProjectRequest,
    ) -> Result<DeleteProjectResponse> {
        let id = parse_id("project_id", &request.project_id)?;
        self.store.delete_project(principal, id).await?;
        self.announce().await;
        Ok(DeleteProjectResponse {})
    }
}
