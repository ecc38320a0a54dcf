use std::time::Duration;

use outrider_model::{
    DeliveryLimits, EndpointId, EndpointSpec, EndpointState, Principal, ProjectId, Reason,
    SubscriptionId, SubscriptionSpec, Target, Timestamp,
};
use sea_orm::{EntityTrait, IntoActiveModel, Set};

use crate::{
    MasterKeys, NewEndpoint, NewProject, NewSubscription, Store, StoreOptions,
    configuration::entity::endpoint_secret,
    testing::{TestDatabase, tenant::*},
};

pub async fn are_kept_as_they_were_given(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let endpoint = tenant.endpoint(&store).await;
    let new = new_endpoint();
    assert_eq!(endpoint.spec, new.spec);
    assert_eq!(store.get_endpoint(who, project, endpoint.id).await.unwrap(), endpoint);
    assert_eq!(store.endpoint_secret(who, project, endpoint.id).await.unwrap().expose(), SECRET);
    let subscription = tenant.subscription(&store, &endpoint, "invoice.*").await;
    assert_eq!(store.get_subscription(who, project, subscription.id).await.unwrap(), subscription);
    // Texts that must not become a part of SQL.
    let odd = new_endpoint_with(|spec| {
        spec.description = "'; DROP TABLE endpoints; -- \u{1f600} \\ \"".to_owned();
    });
    let kept = store.create_endpoint(who, project, odd.clone(), None).await.unwrap();
    assert_eq!(
        store.get_endpoint(who, project, kept.id).await.unwrap().spec.description,
        odd.spec.description
    );
}

pub async fn change_only_what_is_given(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let before = tenant.endpoint(&store).await;
    let same = store.update_endpoint(who, project, before.id, |_| {}).await.unwrap();
    assert_eq!(same, before);
    let pause = |spec: &mut EndpointSpec| spec.state = EndpointState::Paused;
    let paused = store.update_endpoint(who, project, before.id, pause).await.unwrap();
    assert!(paused.updated_at > before.updated_at);
    let mut expected = before.clone();
    expected.spec.state = EndpointState::Paused;
    expected.meta.updated_at = paused.updated_at;
    assert_eq!(paused, expected);
    let everything = |spec: &mut EndpointSpec| {
        *spec = EndpointSpec {
            target: Target::Http { url: "http://other.example/".to_owned() },
            description: String::new(),
            state: EndpointState::Active,
            limits: DeliveryLimits { timeout: Duration::from_secs(30), max_in_flight: 1_024 },
            headers: [].into(),
            metadata: [].into(),
            owner: Some("ann".to_owned()),
            ..EndpointSpec::default()
        };
    };
    let changed = store.update_endpoint(who, project, before.id, everything).await.unwrap();
    assert_eq!(store.get_endpoint(who, project, before.id).await.unwrap(), changed);
    assert_eq!(
        (
            changed.spec.owner.as_deref(),
            changed.spec.limits.max_in_flight,
            changed.spec.headers.len()
        ),
        (Some("ann"), 1_024, 0)
    );
    let unowned = |spec: &mut EndpointSpec| spec.owner = None;
    let unowned = store.update_endpoint(who, project, before.id, unowned).await.unwrap();
    assert_eq!(unowned.spec.owner, None);
    // The secret and the subscriptions are unchanged.
    assert_eq!(store.endpoint_secret(who, project, before.id).await.unwrap().expose(), SECRET);
    let subscription = tenant.subscription(&store, &before, "a").await;
    let change = |spec: &mut SubscriptionSpec| spec.event_types = vec!["b.*".parse().unwrap()];
    let changed = store.update_subscription(who, project, subscription.id, change).await.unwrap();
    assert_eq!(
        (changed.spec.name.as_str(), changed.spec.event_types[0].to_string().as_str()),
        ("all", "b.*")
    );
    assert_eq!(store.get_subscription(who, project, subscription.id).await.unwrap(), changed);
}

pub async fn secrets_open_only_with_their_key_and_row(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let (endpoint, other) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    // With another master key nothing can be decrypted. With both keys, everything can.
    let strange = MasterKeys::generate_text("test");
    let options = StoreOptions {
        master_keys: MasterKeys::parse(&strange).unwrap(),
        ..database.options().clone()
    };
    let outsider = Store::connect(&options).await.unwrap();
    assert_reason(outsider.endpoint_secret(who, project, endpoint.id).await, Reason::Internal);
    // A ciphertext that was moved to another row cannot be decrypted.
    let rows = endpoint_secret::Entity::find().all(store.write()).await.unwrap();
    let find = |id: EndpointId| rows.iter().find(|row| row.endpoint_id == id.0).unwrap().clone();
    let mut moved = find(other.id).into_active_model();
    moved.ciphertext = Set(find(endpoint.id).ciphertext);
    endpoint_secret::Entity::update(moved).exec(store.write()).await.unwrap();
    assert_reason(store.endpoint_secret(who, project, other.id).await, Reason::Internal);
    assert!(store.endpoint_secret(who, project, endpoint.id).await.is_ok());
}

pub async fn given_ids_are_kept_and_refused_when_taken(database: &TestDatabase) {
    let store = database.store().await;
    let (tenant, outsider) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let at = Timestamp(1_700_000_000_000_000);
    let (project, endpoint, subscription) =
        (ProjectId::new(at, 1), EndpointId::new(at, 2), SubscriptionId::new(at, 3));
    let new_project = || NewProject { id: Some(project), ..new_project("given") };
    let new_hook = || NewEndpoint { id: Some(endpoint), ..new_endpoint() };
    let new_subscription = || NewSubscription {
        id: Some(subscription),
        endpoint,
        spec: SubscriptionSpec { name: String::new(), event_types: vec!["*".parse().unwrap()] },
    };
    assert_eq!(
        store.create_project(&tenant.principal, new_project(), None).await.unwrap().id,
        project
    );
    assert_eq!(
        store.create_endpoint(&tenant.principal, project, new_hook(), None).await.unwrap().id,
        endpoint
    );
    let created = store
        .create_subscription(&tenant.principal, project, new_subscription(), None)
        .await
        .unwrap();
    assert_eq!(created.id, subscription);
    let taken = store.create_project(&tenant.principal, new_project(), None).await.unwrap_err();
    assert_eq!(
        (taken.reason, taken.message.as_ref()),
        (Reason::AlreadyExists, "project with this id exists")
    );
    let taken = store
        .create_endpoint(&tenant.principal, tenant.project.id, new_hook(), None)
        .await
        .unwrap_err();
    assert_eq!(
        (taken.reason, taken.message.as_ref()),
        (Reason::AlreadyExists, "endpoint with this id exists")
    );
    // A caller that does not reach it gets the same error as from any other call with that id.
    let (who, own) = (&outsider.principal, outsider.project.id);
    let refused = store.create_project(who, new_project(), None).await.unwrap_err();
    assert_eq!(refused, store.get_project(who, project).await.unwrap_err());
    let refused = store.create_endpoint(who, own, new_hook(), None).await.unwrap_err();
    assert_eq!(refused, store.get_endpoint(who, own, endpoint).await.unwrap_err());
    let hook = store.create_endpoint(who, own, new_endpoint(), None).await.unwrap();
    let same_id = NewSubscription { endpoint: hook.id, ..new_subscription() };
    let refused = store.create_subscription(who, own, same_id, None).await.unwrap_err();
    assert_eq!(refused, store.get_subscription(who, own, subscription).await.unwrap_err());
    let bound = Principal { project: Some(tenant.project.id), ..tenant.principal.clone() };
    let refused =
        store.create_endpoint(&bound, tenant.project.id, new_hook(), None).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotFound, "the key is bound to another project");
    let owned = Principal { owner: Some("o".to_owned()), ..tenant.principal.clone() };
    let refused = store.create_endpoint(&owned, project, new_hook(), None).await.unwrap_err();
    assert_eq!(refused.reason, Reason::NotFound, "the endpoint has no owner");
    assert_reason(
        store.create_subscription(&tenant.principal, project, new_subscription(), None).await,
        Reason::AlreadyExists,
    );
    store.delete_endpoint(&tenant.principal, project, endpoint).await.unwrap();
    assert_reason(
        store.create_endpoint(&tenant.principal, project, new_hook(), None).await,
        Reason::AlreadyExists,
    );
}
