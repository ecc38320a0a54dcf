use outrider_model::{EndpointId, ProjectId, Reason, SubscriptionId, Timestamp};
use outrider_proto::admin::{
    CreateEndpointRequest, CreateSubscriptionRequest, DeleteEndpointRequest,
    DeleteSubscriptionRequest, Endpoint, GetSubscriptionRequest, HttpTarget,
    ListSubscriptionsRequest, Subscription, UpdateSubscriptionRequest, endpoint::Target,
};

use crate::harness::{World, fields, mask, ok, reason};

async fn endpoint(world: &World, project: ProjectId) -> String {
    let target = Some(Target::Http(HttpTarget { url: "https://example.com".to_owned() }));
    let endpoint = Some(Endpoint { target, ..Default::default() });
    let request =
        CreateEndpointRequest { project_id: project.to_string(), endpoint, ..Default::default() };
    ok(world.client(&world.admin).endpoints.create_endpoint(request).await)
        .endpoint
        .unwrap()
        .endpoint_id
}

fn create(project: ProjectId, endpoint: &str, event_types: &[&str]) -> CreateSubscriptionRequest {
    let subscription = Subscription {
        endpoint_id: endpoint.to_owned(),
        event_types: event_types.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    };
    CreateSubscriptionRequest {
        project_id: project.to_string(),
        subscription: Some(subscription),
        request_id: String::new(),
    }
}

fn get(project: ProjectId, id: impl ToString) -> GetSubscriptionRequest {
    GetSubscriptionRequest { project_id: project.to_string(), subscription_id: id.to_string() }
}

fn update(
    project: ProjectId,
    id: impl ToString,
    subscription: Subscription,
    paths: &[&str],
) -> UpdateSubscriptionRequest {
    let (project_id, subscription_id) = (project.to_string(), id.to_string());
    UpdateSubscriptionRequest {
        project_id,
        subscription_id,
        subscription: Some(subscription),
        update_mask: mask(paths),
    }
}

fn delete(project: ProjectId, id: impl ToString) -> DeleteSubscriptionRequest {
    DeleteSubscriptionRequest { project_id: project.to_string(), subscription_id: id.to_string() }
}

fn list(project: ProjectId, endpoint: &str) -> ListSubscriptionsRequest {
    ListSubscriptionsRequest {
        project_id: project.to_string(),
        endpoint_id: endpoint.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_subscription_is_created_changed_and_deleted() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let endpoint = endpoint(&world, project).await;
    let mut client = world.client(&world.admin).subscriptions;
    let made = ok(client.create_subscription(create(project, &endpoint, &["order.*", "*"])).await)
        .subscription
        .unwrap();
    assert_eq!((&made.endpoint_id, made.event_types.join(" ").as_str()), (&endpoint, "order.* *"));
    let id = made.subscription_id.clone();
    assert_eq!(
        ok(client.get_subscription(get(project, &id)).await).subscription,
        Some(made.clone())
    );

    let named = Subscription { name: "orders".to_owned(), ..Default::default() };
    let named = ok(client.update_subscription(update(project, &id, named, &[])).await)
        .subscription
        .unwrap();
    assert_eq!((named.name.as_str(), &named.event_types), ("orders", &made.event_types));
    let changed = Subscription { event_types: vec!["order.paid".to_owned()], ..Default::default() };
    let changed = ok(client.update_subscription(update(project, &id, changed, &["*"])).await)
        .subscription
        .unwrap();
    assert_eq!((changed.name.as_str(), changed.event_types.join(" ").as_str()), ("", "order.paid"));

    ok(client.delete_subscription(delete(project, &id)).await);
    assert_eq!(reason(client.get_subscription(get(project, &id)).await), Reason::NotFound);
    // The count includes the creation of the endpoint.
    assert_eq!(world.queue.count(), 5);
}

#[tokio::test]
async fn a_repeated_request_answers_the_first_subscription() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let endpoint = endpoint(&world, project).await;
    let mut client = world.client(&world.admin).subscriptions;
    let request = CreateSubscriptionRequest {
        request_id: "r-1".to_owned(),
        ..create(project, &endpoint, &["*"])
    };
    let first = ok(client.create_subscription(request.clone()).await);
    assert_eq!(ok(client.create_subscription(request).await), first);
    let other = CreateSubscriptionRequest {
        request_id: "r-1".to_owned(),
        ..create(project, &endpoint, &["a"])
    };
    assert_eq!(reason(client.create_subscription(other).await), Reason::IdempotencyConflict);
    assert_eq!(ok(client.list_subscriptions(list(project, "")).await).subscriptions.len(), 1);
}

#[tokio::test]
async fn lists_are_of_one_endpoint_and_so_are_their_tokens() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let (one, two) = (endpoint(&world, project).await, endpoint(&world, project).await);
    let mut client = world.client(&world.admin).subscriptions;
    for endpoint in [&one, &two, &one] {
        ok(client.create_subscription(create(project, endpoint, &["*"])).await);
    }
    let page = |endpoint: &str, token: &str| ListSubscriptionsRequest {
        page_size: 1,
        page_token: token.to_owned(),
        ..list(project, endpoint)
    };
    let first = ok(client.list_subscriptions(page(&one, "")).await);
    let second = ok(client.list_subscriptions(page(&one, &first.next_page_token)).await);
    assert_eq!((second.subscriptions.len(), second.next_page_token.as_str()), (1, ""));
    assert_eq!(second.subscriptions[0].endpoint_id, one);
    for endpoint in [two.as_str(), ""] {
        let refused = page(endpoint, &first.next_page_token);
        assert_eq!(
            reason(client.list_subscriptions(refused).await),
            Reason::InvalidPageToken,
            "{endpoint}"
        );
    }
    // A subscription is deleted with its endpoint.
    let gone = DeleteEndpointRequest { project_id: project.to_string(), endpoint_id: one };
    ok(world.client(&world.admin).endpoints.delete_endpoint(gone).await);
    let left = ok(client.list_subscriptions(list(project, "")).await).subscriptions;
    assert_eq!(
        left.iter().map(|subscription| &subscription.endpoint_id).collect::<Vec<_>>(),
        [&two]
    );
}

#[tokio::test]
async fn subscriptions_and_endpoints_of_others_do_not_exist() {
    let world = World::new().await;
    let (own, other) = (world.project("own").await, world.project("other").await);
    let (endpoint, foreign) = (endpoint(&world, own).await, endpoint(&world, other).await);
    let mut admin = world.client(&world.admin).subscriptions;
    let made =
        ok(admin.create_subscription(create(own, &endpoint, &["*"])).await).subscription.unwrap();
    let id = made.subscription_id;
    for (principal, project) in
        [(world.outsider().await, own), (world.bound(other), own), (world.admin.clone(), other)]
    {
        let mut client = world.client(&principal).subscriptions;
        let named = Subscription { name: "mine".to_owned(), ..Default::default() };
        assert_eq!(reason(client.get_subscription(get(project, &id)).await), Reason::NotFound);
        assert_eq!(
            reason(client.update_subscription(update(project, &id, named, &[])).await),
            Reason::NotFound
        );
        assert_eq!(
            reason(client.delete_subscription(delete(project, &id)).await),
            Reason::NotFound
        );
    }
    for endpoint in [foreign, EndpointId::new(Timestamp(0), 0).to_string()] {
        assert_eq!(
            reason(admin.create_subscription(create(own, &endpoint, &["*"])).await),
            Reason::NotFound
        );
    }
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let endpoint = endpoint(&world, project).await;
    let mut client = world.client(&world.admin).subscriptions;
    let wrong = create(project, &endpoint, &["a", "b.*", "c*"]);
    assert_eq!(fields(client.create_subscription(wrong).await), ["subscription.event_types[2]"]);
    let empty = create(project, "", &[]);
    assert_eq!(
        fields(client.create_subscription(empty).await),
        ["subscription.endpoint_id", "subscription.event_types"]
    );
    let id = SubscriptionId::new(Timestamp(0), 0);
    let moved = update(
        project,
        id,
        Subscription { endpoint_id: endpoint, ..Default::default() },
        &["endpoint_id"],
    );
    assert_eq!(fields(client.update_subscription(moved).await), ["update_mask"]);
    assert_eq!(fields(client.list_subscriptions(list(project, "evt_1")).await), ["endpoint_id"]);
    assert_eq!(
        fields(client.get_subscription(GetSubscriptionRequest::default()).await),
        ["project_id", "subscription_id"]
    );
}
