//! `DeliveryService`.

use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use outrider_model::{AttemptOutcome, DeliveryStatus, Error, Principal, Result};
use outrider_proto::dispatch::{
    GetDeliveryAttemptRequest, GetDeliveryAttemptResponse, GetDeliveryRequest, GetDeliveryResponse,
    ListDeliveriesRequest, ListDeliveriesResponse, ListDeliveryAttemptsRequest,
    ListDeliveryAttemptsResponse, RetryDeliveryRequest, RetryDeliveryResponse,
    TailDeliveriesRequest, TailDeliveriesResponse, delivery_service_server::DeliveryService,
};
use outrider_rpc::{
    convert::{parse_id, parse_optional_id},
    page::Pager,
    principal, to_status,
};
use outrider_shares::Holder;
use outrider_store::{AttemptFilter, DeliveryFilter, Store};
use tonic::{Request, Response, Status};

use super::{
    convert,
    filters::{optional_event_type, time_range, time_text},
};
use crate::{
    handoff::Handoff,
    tail::{Around, DeliveryUpdates, DeliveryWish, Opening},
};

pub struct Deliveries {
    pub store: Store,
    pub handoff: Handoff,
    pub around: Around,
}

impl Deliveries {
    async fn get(
        &self,
        principal: &Principal,
        request: GetDeliveryRequest,
    ) -> Result<GetDeliveryResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("delivery_id", &request.delivery_id)?;
        let delivery = self.store.get_delivery(principal, project, id).await?;
        Ok(GetDeliveryResponse { delivery: Some(convert::delivery(delivery)) })
    }

    async fn list(
        &self,
        principal: &Principal,
        request: ListDeliveriesRequest,
    ) -> Result<ListDeliveriesResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let (start, end) = time_range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let filter = DeliveryFilter {
            event: parse_optional_id("event_id", &request.event_id)?,
            event_type: optional_event_type(&request.event_type)?,
            endpoint: parse_optional_id("endpoint_id", &request.endpoint_id)?,
            status: known("status", request.status, DeliveryStatus::from_number)?,
            start,
            end,
        };
        let filters = [
            &request.project_id,
            &request.event_id,
            &request.event_type,
            &request.endpoint_id,
            &request.status.to_string(),
            &time_text(start),
            &time_text(end),
        ];
        let pager = Pager::new("ListDeliveries", &filters.map(String::as_str));
        let page_request = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_deliveries(principal, project, &filter, page_request).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        let deliveries = page.items.into_iter().map(convert::delivery).collect();
        Ok(ListDeliveriesResponse { deliveries, next_page_token, previous_page_token })
    }

    async fn retry(
        &self,
        principal: &Principal,
        request: RetryDeliveryRequest,
    ) -> Result<RetryDeliveryResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("delivery_id", &request.delivery_id)?;
        let delivery = self.store.retry_delivery(principal, project, id).await?;
        self.handoff.feed([delivery.endpoint]);
        Ok(RetryDeliveryResponse { delivery: Some(convert::delivery(delivery)) })
    }

    async fn get_attempt(
        &self,
        principal: &Principal,
        request: GetDeliveryAttemptRequest,
    ) -> Result<GetDeliveryAttemptResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let id = parse_id("attempt_id", &request.attempt_id)?;
        let attempt = self.store.get_attempt(principal, project, id).await?;
        Ok(GetDeliveryAttemptResponse { attempt: Some(convert::attempt(attempt, true)) })
    }

    async fn list_attempts(
        &self,
        principal: &Principal,
        request: ListDeliveryAttemptsRequest,
    ) -> Result<ListDeliveryAttemptsResponse> {
        let project = parse_id("project_id", &request.project_id)?;
        let (start, end) = time_range(request.start_time.as_ref(), request.end_time.as_ref())?;
        let filter = AttemptFilter {
            delivery: parse_optional_id("delivery_id", &request.delivery_id)?,
            endpoint: parse_optional_id("endpoint_id", &request.endpoint_id)?,
            outcome: known("outcome", request.outcome, AttemptOutcome::from_number)?,
            start,
            end,
        };
        let filters = [
            &request.project_id,
            &request.delivery_id,
            &request.endpoint_id,
            &request.outcome.to_string(),
            &time_text(start),
            &time_text(end),
        ];
        let pager = Pager::new("ListDeliveryAttempts", &filters.map(String::as_str));
        let page_request = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_attempts(principal, project, &filter, page_request).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        let attempts =
            page.items.into_iter().map(|attempt| convert::attempt(attempt, false)).collect();
        Ok(ListDeliveryAttemptsResponse { attempts, next_page_token, previous_page_token })
    }
}

impl Deliveries {
    async fn tail(
        &self,
        principal: Principal,
        request: TailDeliveriesRequest,
    ) -> Result<<Self as DeliveryService>::TailDeliveriesStream> {
        let project = parse_id("project_id", &request.project_id)?;
        let mut statuses = Vec::new();
        for (index, number) in request.statuses.iter().enumerate() {
            let status =
                known(&format!("statuses[{index}]"), *number, DeliveryStatus::from_number)?;
            statuses.extend(status.filter(|status| !statuses.contains(status)));
        }
        let wish = DeliveryWish {
            endpoint: parse_optional_id("endpoint_id", &request.endpoint_id)?,
            event: parse_optional_id("event_id", &request.event_id)?,
            statuses,
        };
        self.around.directory.project(&principal, project).await?;
        let holder = Holder::within(&principal, project);
        let source = DeliveryUpdates { store: self.store.clone(), principal, project, wish };
        let opening = Opening {
            around: self.around.clone(),
            holder,
            project,
            cursor: request.cursor,
            source,
        };
        let messages = opening.open().await?;
        Ok(Box::pin(
            messages.map(|message| message.map(convert::tailed_delivery).map_err(to_status)),
        ))
    }
}

/// Reads a filter by an enum. Unspecified means no filter; an unknown value is refused.
fn known<T>(field: &str, number: i32, parse: impl Fn(i32) -> Option<T>) -> Result<Option<T>> {
    if number == 0 {
        return Ok(None);
    }
    parse(number).map(Some).ok_or_else(|| Error::field(field, "is not a value of its enum"))
}

#[async_trait]
impl DeliveryService for Deliveries {
    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        let principal = principal(&request)?;
        self.get(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let principal = principal(&request)?;
        self.list(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn retry_delivery(
        &self,
        request: Request<RetryDeliveryRequest>,
    ) -> Result<Response<RetryDeliveryResponse>, Status> {
        let principal = principal(&request)?;
        self.retry(&principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn get_delivery_attempt(
        &self,
        request: Request<GetDeliveryAttemptRequest>,
    ) -> Result<Response<GetDeliveryAttemptResponse>, Status> {
        let principal = principal(&request)?;
        self.get_attempt(&principal, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    type TailDeliveriesStream =
        Pin<Box<dyn Stream<Item = Result<TailDeliveriesResponse, Status>> + Send>>;

    async fn tail_deliveries(
        &self,
        request: Request<TailDeliveriesRequest>,
    ) -> Result<Response<Self::TailDeliveriesStream>, Status> {
        let principal = principal(&request)?;
        self.tail(principal, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list_delivery_attempts(
        &self,
        request: Request<ListDeliveryAttemptsRequest>,
    ) -> Result<Response<ListDeliveryAttemptsResponse>, Status> {
        let principal = principal(&request)?;
        self.list_attempts(&principal, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }
}
