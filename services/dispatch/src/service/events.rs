//! `EventService`.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use outrider_model::{Error, EventTypePattern, Principal, Result, error::Violations, limits};
use outrider_proto::dispatch::{
    ErasePayloadRequest, ErasePayloadResponse, GetEventRequest, GetEventResponse,
    ListEventsRequest, ListEventsResponse, TailEventsRequest, TailEventsResponse,
    event_service_server::EventService,
};
use outrider_rpc::{convert::parse_id, page::Pager, principal, to_status};
use outrider_shares::Holder;
use outrider_store::{EventFilter, Ledger, Store};
use tonic::{Request, Response, Status};

use super::{
    convert,
    filters::{optional_event_type, time_range, time_text},
};
use crate::{
    measure,
    tail::{AcceptedEvents, Around, EventWish, Opening},
};

pub struct Events {
    pub store: Store,
    pub ledger: Arc<dyn Ledger>,
    pub around: Around,
}

impl Events {
    async fn get(
        &self,
        principal: &Principal,
        request: GetEventRequest,
    ) -> Result<GetEventResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("event_id", &request.event_id)?;
        let (event, payload) = self.store.get_event(principal, project, id).await?;
        Ok(GetEventResponse { event: Some(convert::event(event, Some(payload))) })
    }

    async fn list(
        &self,
        principal: &Principal,
        request: ListEventsRequest,
    ) -> Result<ListEventsResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let (start, end) = time_range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let event_type = optional_event_type(&request.event_type)?;
        let filters =
            [&request.project_id, &request.event_type, &time_text(start), &time_text(end)];
        let pager = Pager::new("ListEvents", &filters.map(String::as_str));
        let page_request = pager.request(request.page_size, &request.page_token)?;
        let page = self
            .store
            .list_events(principal, project, &EventFilter { event_type, start, end }, page_request)
            .await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        let events = page.items.into_iter().map(|event| convert::event(event, None)).collect();
        Ok(ListEventsResponse { events, next_page_token, previous_page_token })
    }
}

impl Events {
    async fn erase_payload(
        &self,
        principal: &Principal,
        request: ErasePayloadRequest,
    ) -> Result<ErasePayloadResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("event_id", &request.event_id)?;
        let (event, erased) = self.store.erase_payload(principal, project, id).await?;
        measure::erased("request", u64::from(erased));
        Ok(ErasePayloadResponse { event: Some(convert::event(event, None)) })
    }

    async fn tail(
        &self,
        principal: &Principal,
        request: TailEventsRequest,
    ) -> Result<<Self as EventService>::TailEventsStream> {
        let project = parse_id("project_id", &request.project_id)?;
        let wish = EventWish {
            event_types: patterns(&request.event_types)?,
            with_payload: request.include_payload,
        };
        self.store.reads_all_events(principal, project).await?;
        let holder = Holder::within(principal, project);
        let (store, ledger) = (self.store.clone(), Arc::clone(&self.ledger));
        let source = AcceptedEvents { store, ledger, holder, project, wish };
        let opening = Opening {
            around: self.around.clone(),
            holder,
            project,
            cursor: request.cursor,
            source,
        };
        let messages = opening.open().await?;
        Ok(Box::pin(messages.map(|message| message.map(convert::tailed_event).map_err(to_status))))
    }
}

/// Parses patterns of event types, as in subscriptions.
fn patterns(texts: &[String]) -> Result<Vec<EventTypePattern>> {
    let most = limits::SUBSCRIPTION_EVENT_TYPES;
    if texts.len() > most {
        return Err(Error::field("event_types", format!("must have at most {most} entries")));
    }
    let mut violations = Violations::new();
    let parsed = texts.iter().enumerate();
    let parsed = parsed
        .filter_map(|(index, text)| violations.check(format!("event_types[{index}]"), text.parse()))
        .collect();
    violations.finish().map(|()| parsed)
}

#[async_trait]
impl EventService for Events {
    async fn get_event(
        &self,
        request: Request<GetEventRequest>,
    ) -> Result<Response<GetEventResponse>, Status> {
        let principal = principal(&request)?;
        self.get(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let principal = principal(&request)?;
        self.list(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn erase_payload(
        &self,
        request: Request<ErasePayloadRequest>,
    ) -> Result<Response<ErasePayloadResponse>, Status> {
        let principal = principal(&request)?;
        self.erase_payload(&principal, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    type TailEventsStream = Pin<Box<dyn Stream<Item = Result<TailEventsResponse, Status>> + Send>>;

    async fn tail_events(
        &self,
        request: Request<TailEventsRequest>,
    ) -> Result<Response<Self::TailEventsStream>, Status> {
        let principal = principal(&request)?;
        self.tail(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }
}
