//! The service for subscriptions.

use outrider_model::{Principal, Result, error::Violations};
use outrider_proto::admin::{
    CreateSubscriptionRequest, CreateSubscriptionResponse, DeleteSubscriptionRequest,
    DeleteSubscriptionResponse, GetSubscriptionRequest, GetSubscriptionResponse,
    ListSubscriptionsRequest, ListSubscriptionsResponse, UpdateSubscriptionRequest,
    UpdateSubscriptionResponse, subscription_service_server::SubscriptionService,
};
use outrider_rpc::page::Pager;

use super::{Services, serve};
use crate::{convert::subscription as convert, fields};

serve!(SubscriptionService {
    create_subscription: CreateSubscriptionRequest -> CreateSubscriptionResponse;
    get_subscription: GetSubscriptionRequest -> GetSubscriptionResponse;
    list_subscriptions: ListSubscriptionsRequest -> ListSubscriptionsResponse;
    update_subscription: UpdateSubscriptionRequest -> UpdateSubscriptionResponse;
    delete_subscription: DeleteSubscriptionRequest -> DeleteSubscriptionResponse;
});

impl Services {
    async fn create_subscription(
        &self,
        principal: &Principal,
        request: CreateSubscriptionRequest,
    ) -> Result<CreateSubscriptionResponse> {
        let (project, new, request_id) = convert::create(&request)?;
        let subscription =
            self.store.create_subscription(principal, project, new, request_id).await?;
        self.announce().await;
        Ok(CreateSubscriptionResponse { subscription: Some(convert::to_wire(subscription)) })
    }

    async fn get_subscription(
        &self,
        principal: &Principal,
        request: GetSubscriptionRequest,
    ) -> Result<GetSubscriptionResponse> {
        let (project, id) =
            fields::project_and("subscription_id", &request.project_id, &request.subscription_id)?;
        let subscription = self.store.get_subscription(principal, project, id).await?;
        Ok(GetSubscriptionResponse { subscription: Some(convert::to_wire(subscription)) })
    }

    async fn list_subscriptions(
        &self,
        principal: &Principal,
        request: ListSubscriptionsRequest,
    ) -> Result<ListSubscriptionsResponse> {
        let mut violations = Violations::new();
        let project = fields::id(&mut violations, "project_id", &request.project_id);
        let endpoint = fields::optional_id(&mut violations, "endpoint_id", &request.endpoint_id);
        let (project, endpoint) = fields::checked(violations, project.zip(endpoint))?;
        let pager = Pager::new("ListSubscriptions", &[&request.project_id, &request.endpoint_id]);
        let wanted = pager.request(request.page_size, &request.page_token)?;
        let page = self.store.list_subscriptions(principal, project, endpoint, wanted).await?;
        let (next_page_token, previous_page_token) = pager.tokens(&page);
        let subscriptions = page.map(convert::to_wire).items;
        Ok(ListSubscriptionsResponse { subscriptions, next_page_token, previous_page_token })
    }

    async fn update_subscription(
        &self,
        principal: &Principal,
        request: UpdateSubscriptionRequest,
    ) -> Result<UpdateSubscriptionResponse> {
        let endpoint = request
            .subscription
            .as_ref()
            .map(|given| given.endpoint_id.clone())
            .unwrap_or_default();
        let (project, id, change) = convert::change(request)?;
        if !endpoint.is_empty() {
            // The endpoint of a subscription never changes, so this check needs no transaction.
            let stored = self.store.get_subscription(principal, project, id).await?;
            let mut violations = Violations::new();
            fields::fixed(
                &mut violations,
                "subscription.endpoint_id",
                &endpoint,
                &stored.fixed.endpoint.to_string(),
            );
            violations.finish()?;
        }
        let subscription = self
            .store
            .update_subscription(principal, project, id, move |spec| change.apply(spec))
            .await?;
        self.announce().await;
        Ok(UpdateSubscriptionResponse { subscription: Some(convert::to_wire(subscription)) })
    }

    async fn delete_subscription(
        &self,
        principal: &Principal,
        request: DeleteSubscriptionRequest,
    ) -> Result<DeleteSubscriptionResponse> {
        let (project, id) =
            fields::project_and("subscription_id", &request.project_id, &request.subscription_id)?;
        self.store.delete_subscription(principal, project, id).await?;
        self.announce().await;
        Ok(DeleteSubscriptionResponse {})
    }
}
