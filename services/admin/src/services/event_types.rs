//! The service for event types.

use outrider_model::{Error, Principal, Result};
use outrider_proto::admin::{
    CreateEventTypeRequest, CreateEventTypeResponse, DeleteEventTypeRequest,
    DeleteEventTypeResponse, GetEventTypeRequest, GetEventTypeResponse, ListEventTypesRequest,
    ListEventTypesResponse, UpdateEventTypeRequest, UpdateEventTypeResponse,
    event_type_service_server::EventTypeService,
};
use outrider_rpc::{convert::parse_id, page::Pager};
use outrider_schema::Schema;
use outrider_shares::Holder;

use super::{Services, serve};
use crate::{convert::event_type as convert, fields};

serve!(EventTypeService {
    create_event_type: CreateEventTypeRequest -> CreateEventTypeResponse;
    get_event_type: GetEventTypeRequest -> GetEventTypeResponse;
    list_event_types: ListEventTypesRequest -> ListEventTypesResponse;
    update_event_type: UpdateEventTypeRequest -> UpdateEventTypeResponse;
    delete_event_type: DeleteEventTypeRequest -> DeleteEventTypeResponse;
});

impl Services {
    async fn create_event_type(
        &self,
        principal: &Principal,
        request: CreateEventTypeRequest,
    ) -> Result<CreateEventTypeResponse> {
        let (project, new, request_id) = convert::create(&request)?;
        self.require_schema(principal, new.spec.schema.as_deref()).await?;
        let entry = self.store.create_event_type(principal, project, new, request_id).await?;
        self.announce().await;
        Ok(CreateEventTypeResponse { definition: Some(convert::to_wire(entry)) })
    }

    async fn get_event_type(
        &self,
        principal: &Principal,
        request: GetEventTypeRequest,
    ) -> Result<GetEventTypeResponse> {
        let (project, event_type) =
            fields::project_and("event_type", &request.project_id, &request.event_type)?;
        let entry = self.store.get_event_type(principal, project, &event_type).await?;
        Ok(GetEventTypeResponse { definition: Some(convert::to_wire(entry)) })
    }

    async fn list_event_types(
        &self,
        principal: &Principal,
        request: ListEventTypesRequest,
    ) -> Result<ListEventTypesResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let pager = Pager::new("ListEventTypes", &[&request.project_id]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_event_types(principal, project, wanted).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        Ok(ListEventTypesResponse {
            event_types: page.map(convert::to_wire).items,
            next_page_token,
            previous_page_token,
        })
    }

    async fn update_event_type(
        &self,
        principal: &Principal,
        request: UpdateEventTypeRequest,
    ) -> Result<UpdateEventTypeResponse> {
        let (project, event_type, change) = convert::change(request)?;
        self.require_schema(principal, change.given().schema.as_deref()).await?;
        let entry = self
            .store
            .update_event_type(principal, project, &event_type, move |spec| change.apply(spec))
            .await?;
        self.announce().await;
        Ok(UpdateEventTypeResponse { definition: Some(convert::to_wire(entry)) })
    }

    async fn delete_event_type(
        &self,
        principal: &Principal,
        request: DeleteEventTypeRequest,
    ) -> Result<DeleteEventTypeResponse> {
        let (project, event_type) =
            fields::project_and("event_type", &request.project_id, &request.event_type)?;
        self.store.delete_event_type(principal, project, &event_type).await?;
        self.announce().await;
        Ok(DeleteEventTypeResponse {})
    }

    /// Refuses a schema that does not compile, and names the position in it.
    async fn require_schema(&self, principal: &Principal, text: Option<&str>) -> Result<()> {
        let Some(text) = text.map(str::to_owned) else { return Ok(()) };
        // Compilations take turns, so a caller with many large schemas waits and delays nobody
        // else. The turn counts for the caller, because its access to the project is not checked
        // yet.
        let turn = self.checks.take(Holder::of(principal)).await?;
        let compile = move || {
            // Held until the work is done, whether or not anyone still waits for it.
            let _turn = turn;
            Schema::compile(&text).map(drop)
        };
        let compiled = tokio::task::spawn_blocking(compile).await;
        let compiled = compiled.map_err(|_| {
            tracing::error!("compiling a schema panicked");
            Error::internal("the schema was not compiled")
        })?;
        compiled.map_err(|fault| {
            Error::field(format!("definition.schema{}", fault.pointer), fault.description)
        })
    }
}
