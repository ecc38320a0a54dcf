//! `EventService`.

use async_trait::async_trait;
use outrider_model::{EventType, Principal, Result};
use outrider_proto::dispatch::{
    GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse, event_service_server::EventService,
};
use outrider_rpc::{convert::parse_id, page::Pager, principal, to_status};
use outrider_store::{EventFilter, Store};
use tonic::{Request, Response, Status};

use super::{time_range, time_text};
use crate::convert;

pub struct Events {
    pub store: Store,
}

impl Events {
    async fn get(&self, principal: &Principal, request: GetEventRequest) -> Result<GetEventResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("event_id", &request.event_id)?;
        let (event, payload) = self.store.get_event(principal, project, id).await?;
        Ok(GetEventResponse { event: Some(convert::event(event, Some(payload))) })
    }

    async fn list(&self, principal: &Principal, request: ListEventsRequest) -> Result<ListEventsResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let (start, end) = time_range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let event_type = optional_event_type(&request.event_type)?;
        let filters = [&request.project_id, &request.event_type, &time_text(start), &time_text(end)];
        let pager = Pager::new("ListEvents", &filters.map(String::as_str));
        let page_request = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_events(principal, project, &EventFilter { event_type, start, end }, page_request).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        let events = page.items.into_iter().map(|event| convert::event(event, None)).collect();
        Ok(ListEventsResponse { events, next_page_token, previous_page_token })
    }
}

/// A filter by event type: refused when no event could have it.
pub fn optional_event_type(text: &str) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed: EventType = parse_id("event_type", text)?;
    Ok(Some(parsed.as_str().to_owned()))
}

#[async_trait]
impl EventService for Events {
    async fn get_event(&self, request: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        let principal = principal(&request)?;
        self.get(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let principal = principal(&request)?;
        self.list(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }
}
