use outrider_model::{
    ApiKeyId, EndpointId, EndpointSpec, OrganizationSpec, Principal, ProjectId, ProjectSpec,
    Reason, Scope, SubscriptionId, SubscriptionSpec, Timestamp,
};

use crate::{
    NewProject, NewSubscription, Store,
    testing::{TestDatabase, tenant::*},
};

struct Objects {
    project: ProjectId,
    endpoint: EndpointId,
    subscription: SubscriptionId,
}

async fn objects(store: &Store, tenant: &Tenant) -> Objects {
    let endpoint = tenant.endpoint(store).await;
    let subscription = tenant.subscription(store, &endpoint, "*").await;
    Objects { project: tenant.project.id, endpoint: endpoint.id, subscription: subscription.id }
}

/// Every call that names a project, an endpoint or a subscription, by a principal that must not
/// find `what`.
async fn assert_none_found(store: &Store, who: &Principal, ids: &Objects, what: &'static str) {
    let Objects { project, endpoint, subscription } = *ids;
    let rename = |spec: &mut SubscriptionSpec| spec.name = "stolen".to_owned();
    let describe = |spec: &mut EndpointSpec| spec.description = "stolen".to_owned();
    assert_not_found(store.get_endpoint(who, project, endpoint).await, what);
    assert_not_found(store.update_endpoint(who, project, endpoint, describe).await, what);
    assert_not_found(store.delete_endpoint(who, project, endpoint).await, what);
    assert_not_found(store.endpoint_secret(who, project, endpoint).await, what);
    let all = store.list_subscriptions(who, project, Some(endpoint), first_page(10)).await;
    assert_not_found(all, what);
    let new = NewSubscription {
        id: None,
        endpoint,
        spec: SubscriptionSpec { name: String::new(), event_types: vec!["*".parse().unwrap()] },
    };
    assert_not_found(store.create_subscription(who, project, new, None).await, what);
    let what = if what == "endpoint" { "subscription" } else { what };
    assert_not_found(store.get_subscription(who, project, subscription).await, what);
    assert_not_found(store.update_subscription(who, project, subscription, rename).await, what);
    assert_not_found(store.delete_subscription(who, project, subscription).await, what);
}

async fn assert_project_not_found(store: &Store, who: &Principal, ids: &Objects) {
    let project = ids.project;
    assert_not_found(store.get_project(who, project).await, "project");
    let rename = |spec: &mut ProjectSpec| spec.name = "stolen".to_owned();
    assert_not_found(store.update_project(who, project, rename).await, "project");
    assert_not_found(store.delete_project(who, project).await, "project");
    assert_not_found(store.create_endpoint(who, project, new_endpoint(), None).await, "project");
    assert_not_found(store.list_endpoints(who, project, None, first_page(10)).await, "project");
    assert_not_found(store.list_subscriptions(who, project, None, first_page(10)).await, "project");
    assert_none_found(store, who, ids, "project").await;
}

pub async fn what_is_foreign_is_not_found(database: &TestDatabase) {
    let store = database.store().await;
    let (own, foreign) = (tenant(&store, "own").await, tenant(&store, "foreign").await);
    let theirs = objects(&store, &foreign).await;
    let ours = objects(&store, &own).await;
    assert_project_not_found(&store, &own.principal, &theirs).await;
    // The same errors as for objects that never existed.
    let at = Timestamp(1);
    let nothing = Objects {
        project: ProjectId::new(at, 1),
        endpoint: EndpointId::new(at, 1),
        subscription: SubscriptionId::new(at, 1),
    };
    assert_project_not_found(&store, &own.principal, &nothing).await;
    // Foreign endpoints and subscriptions through the caller's own project, also those of its own
    // organization.
    assert_none_found(
        &store,
        &own.principal,
        &Objects { project: ours.project, ..theirs },
        "endpoint",
    )
    .await;
    let second = store.create_project(&own.principal, new_project("second"), None).await.unwrap();
    assert_none_found(&store, &own.principal, &Objects { project: second.id, ..ours }, "endpoint")
        .await;

    let organization = foreign.principal.organization;
    assert_not_found(store.get_organization(&own.principal, organization).await, "organization");
    let rename = |spec: &mut OrganizationSpec| spec.name = "stolen".to_owned();
    assert_not_found(
        store.update_organization(&own.principal, organization, rename).await,
        "organization",
    );
    let key = store
        .create_api_key(&foreign.principal, new_api_key(&[Scope::EventsRead]), None)
        .await
        .unwrap()
        .0
        .id;
    for id in [key, ApiKeyId::new(at, 1)] {
        assert_not_found(store.get_api_key(&own.principal, id).await, "api key");
        assert_not_found(store.update_api_key(&own.principal, id, |_| {}).await, "api key");
        assert_not_found(store.delete_api_key(&own.principal, id).await, "api key");
    }
    let mut new = new_api_key(&[Scope::EventsRead]);
    new.project = Some(theirs.project);
    assert_not_found(
        store.create_api_key(&own.principal, new, None).await.map(|(key, _)| key),
        "project",
    );

    let page = first_page(100);
    let organizations = store.list_organizations(&own.principal, page).await.unwrap().items;
    assert_eq!(
        organizations.iter().map(|organization| organization.id).collect::<Vec<_>>(),
        [own.principal.organization]
    );
    let projects = store.list_projects(&own.principal, page).await.unwrap().items;
    assert_eq!(
        projects.iter().map(|project| project.id).collect::<Vec<_>>(),
        [ours.project, second.id]
    );
    assert!(store.list_api_keys(&own.principal, page).await.unwrap().items.is_empty());
    let endpoints =
        store.list_endpoints(&own.principal, ours.project, None, page).await.unwrap().items;
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(), [ours.endpoint]);
    let subscriptions =
        store.list_subscriptions(&own.principal, ours.project, None, page).await.unwrap().items;
    assert_eq!(
        subscriptions.iter().map(|subscription| subscription.id).collect::<Vec<_>>(),
        [ours.subscription]
    );
    // And nothing of the others was changed.
    let kept =
        store.get_endpoint(&foreign.principal, theirs.project, theirs.endpoint).await.unwrap();
    assert_eq!(kept.spec.description, "a hook");
    store.get_subscription(&foreign.principal, theirs.project, theirs.subscription).await.unwrap();
}

pub async fn what_is_deleted_is_not_found(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let ids = objects(&store, &tenant).await;
    store.delete_endpoint(who, project, ids.endpoint).await.unwrap();
    assert_none_found(&store, who, &ids, "endpoint").await;
    assert!(
        store.list_endpoints(who, project, None, first_page(10)).await.unwrap().items.is_empty()
    );
    assert!(
        store
            .list_subscriptions(who, project, None, first_page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let ids = objects(&store, &tenant).await;
    let mut new = new_api_key(&[Scope::EventsRead]);
    new.project = Some(project);
    let (key, _) = store.create_api_key(who, new, None).await.unwrap();
    store.delete_project(who, project).await.unwrap();
    assert_project_not_found(&store, who, &ids).await;
    assert_not_found(store.get_api_key(who, key.id).await, "api key");
    assert!(store.list_api_keys(who, first_page(10)).await.unwrap().items.is_empty());
    assert!(store.list_projects(who, first_page(10)).await.unwrap().items.is_empty());
    let again = NewProject { id: Some(project), ..new_project("again") };
    assert_reason(store.create_project(who, again, None).await, Reason::AlreadyExists);
}

pub async fn a_bound_key_reaches_its_project_only(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let other = store.create_project(&tenant.principal, new_project("other"), None).await.unwrap();
    let ids = objects(&store, &tenant).await;
    let bound = tenant.bound();
    store.get_endpoint(&bound, ids.project, ids.endpoint).await.unwrap();
    let elsewhere = Principal { project: Some(other.id), ..tenant.principal.clone() };
    assert_project_not_found(&store, &elsewhere, &ids).await;
    let seen = store.list_projects(&bound, first_page(10)).await.unwrap().items;
    assert_eq!(seen.iter().map(|project| project.id).collect::<Vec<_>>(), [ids.project]);
    let new = new_project("more");
    assert_reason(store.create_project(&bound, new, None).await, Reason::BeyondOwnScope);
    let rename = |spec: &mut OrganizationSpec| spec.name = "mine".to_owned();
    let renamed = store.update_organization(&bound, bound.organization, rename).await;
    assert_reason(renamed, Reason::BeyondOwnScope);
}

pub async fn a_key_of_an_owner_reaches_its_endpoints_only(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let project = tenant.project.id;
    let own = |name: &str| Principal { owner: Some(name.to_owned()), ..tenant.bound() };
    let (ann, bob) = (own("ann"), own("bob"));
    // It gets the owner of the key and cannot get another.
    let endpoint = store.create_endpoint(&ann, project, new_endpoint(), None).await.unwrap();
    assert_eq!(endpoint.spec.owner.as_deref(), Some("ann"));
    let stolen = new_endpoint_with(|spec| spec.owner = Some("bob".to_owned()));
    assert_reason(store.create_endpoint(&ann, project, stolen, None).await, Reason::BeyondOwnScope);
    let given = |spec: &mut EndpointSpec| spec.owner = Some("bob".to_owned());
    assert_reason(
        store.update_endpoint(&ann, project, endpoint.id, given).await,
        Reason::BeyondOwnScope,
    );
    let subscription = tenant.subscription(&store, &endpoint, "*").await;
    store.get_subscription(&ann, project, subscription.id).await.unwrap();
    let ids = Objects { project, endpoint: endpoint.id, subscription: subscription.id };
    assert_none_found(&store, &bob, &ids, "endpoint").await;
    assert!(
        store
            .list_endpoints(&bob, project, Some("ann"), first_page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert!(
        store
            .list_subscriptions(&bob, project, None, first_page(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        store
            .list_endpoints(&tenant.principal, project, Some("ann"), first_page(10))
            .await
            .unwrap()
            .items,
        [endpoint.masked()]
    );
    assert_reason(store.delete_project(&ann, project).await, Reason::BeyondOwnScope);
    let key = store
        .create_api_key(&tenant.principal, new_api_key(&[Scope::EventsRead]), None)
        .await
        .unwrap()
        .0;
    assert_not_found(store.get_api_key(&ann, key.id).await, "api key");
    let mut new = new_api_key(&[Scope::EventsRead]);
    new.project = Some(project);
    assert_reason(store.create_api_key(&ann, new, None).await, Reason::BeyondOwnScope);
}
