use std::collections::HashSet;

use outrider_model::{Reason, SubscriptionSpec};
use sea_orm::{EntityTrait, sea_query::Expr};

use crate::{
    NewSubscription,
    configuration::entity::request,
    testing::{TestDatabase, tenant::*},
};

pub async fn repeated_answer_the_same_and_others_conflict(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let named = new_project;
    let first = store.create_project(who, named("p"), Some("r1")).await.unwrap();
    assert_eq!(store.create_project(who, named("p"), Some("r1")).await.unwrap(), first);
    assert_reason(
        store.create_project(who, named("q"), Some("r1")).await,
        Reason::IdempotencyConflict,
    );

    let endpoint = store.create_endpoint(who, project, new_endpoint(), Some("r1")).await.unwrap();
    assert_eq!(
        store.create_endpoint(who, project, new_endpoint(), Some("r1")).await.unwrap(),
        endpoint
    );
    let other = new_endpoint_with(|spec| spec.limits.max_in_flight = 8);
    assert_reason(
        store.create_endpoint(who, project, other, Some("r1")).await,
        Reason::IdempotencyConflict,
    );
    // Each project has its own ids. A failed request does not use its id up.
    let elsewhere = store.create_endpoint(who, first.id, new_endpoint(), Some("r1")).await.unwrap();
    assert_ne!(elsewhere.id, endpoint.id);
    let new = |endpoint| NewSubscription {
        id: None,
        endpoint,
        spec: SubscriptionSpec { name: String::new(), event_types: vec!["*".parse().unwrap()] },
    };
    assert_not_found(
        store.create_subscription(who, project, new(elsewhere.id), Some("r2")).await,
        "endpoint",
    );
    let subscription =
        store.create_subscription(who, project, new(endpoint.id), Some("r2")).await.unwrap();
    assert_eq!(
        store.create_subscription(who, project, new(endpoint.id), Some("r2")).await.unwrap(),
        subscription
    );
    // The same id with another method.
    assert_reason(
        store.create_subscription(who, project, new(endpoint.id), Some("r1")).await,
        Reason::IdempotencyConflict,
    );

    let scopes = [outrider_model::Scope::EventsRead];
    let (key, token) = store.create_api_key(who, new_api_key(&scopes), Some("r3")).await.unwrap();
    let (again, none) = store.create_api_key(who, new_api_key(&scopes), Some("r3")).await.unwrap();
    assert!(again == key && token.is_some() && none.is_none());
    // The created object was deleted since.
    store.delete_api_key(who, key.id).await.unwrap();
    assert_not_found(store.create_api_key(who, new_api_key(&scopes), Some("r3")).await, "api key");
}

pub async fn many_at_once_create_one(database: &TestDatabase) {
    let store = database.store().await;
    // As from two processes.
    let other = database.connect().await;
    let tenant = tenant(&store, "a").await;
    let create = |index: usize| {
        let store = if index.is_multiple_of(2) { &store } else { &other };
        store.create_endpoint(&tenant.principal, tenant.project.id, new_endpoint(), Some("same"))
    };
    let created = futures::future::join_all((0..24).map(create)).await;
    let ids: HashSet<_> = created.into_iter().map(|created| created.unwrap().id).collect();
    assert_eq!(ids.len(), 1);
    let all = store
        .list_endpoints(&tenant.principal, tenant.project.id, None, first_page(50))
        .await
        .unwrap();
    assert_eq!(all.items.len(), 1);
}

pub async fn are_forgotten_after_a_day(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let create =
        |id| store.create_endpoint(&tenant.principal, tenant.project.id, new_endpoint(), Some(id));
    let first = create("old").await.unwrap();
    create("older").await.unwrap();
    let day = 24 * 60 * 60 * 1_000_000;
    let long_ago = store.clock().now().0 - day - 1;
    let age =
        request::Entity::update_many().col_expr(request::Column::CreatedAt, Expr::value(long_ago));
    age.exec(store.write()).await.unwrap();
    assert_ne!(create("old").await.unwrap().id, first.id);
    let kept = request::Entity::find().all(store.read()).await.unwrap();
    assert_eq!(kept.iter().map(|row| row.request_id.as_str()).collect::<Vec<_>>(), ["old"]);
}
