//! The catalog of event types, on both backends.

use outrider_model::{
    EventTypeDefinition, EventTypeSpec, PageRequest, Principal, ProjectSpec, Reason,
    SchemaValidation, limits,
};
use outrider_shares::Holder;
use sea_orm::{EntityTrait, IntoActiveModel, Set};
use uuid::Uuid;

use crate::{
    Catalog, ChangeKind, Directory, DirectoryOptions, NewEventType, Store,
    configuration::entity::event_type,
    testing::{TestDatabase, tenant::*},
};

const SCHEMA: &str = "{ \"type\" : \"object\",\n \"x\": 1.0 }";

fn new(name: &str, schema: Option<&str>) -> NewEventType {
    NewEventType {
        event_type: name.parse().unwrap(),
        spec: EventTypeSpec {
            description: "An order: '; DROP TABLE \u{1f600}".to_owned(),
            schema: schema.map(str::to_owned),
            deprecated: false,
        },
    }
}

async fn create(
    store: &Store,
    tenant: &Tenant,
    name: &str,
    schema: Option<&str>,
) -> EventTypeDefinition {
    store
        .create_event_type(&tenant.principal, tenant.project.id, new(name, schema), None)
        .await
        .unwrap()
}

pub async fn are_kept_changed_and_deleted(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let made = create(&store, &tenant, "order.paid", Some(SCHEMA)).await;
    let name = &made.fixed.event_type;
    assert_eq!(made.spec.schema.as_deref(), Some(SCHEMA));
    assert_eq!(store.get_event_type(who, project, name).await.unwrap(), made);
    let unchanged = store.update_event_type(who, project, name, |_| {}).await.unwrap();
    assert_eq!(unchanged, made);
    let change = |spec: &mut EventTypeSpec| spec.deprecated = true;
    let deprecated = store.update_event_type(who, project, name, change).await.unwrap();
    let mut expected = made.clone();
    (expected.spec.deprecated, expected.meta.updated_at) = (true, deprecated.updated_at);
    assert_eq!(deprecated, expected);
    assert!(deprecated.updated_at > made.updated_at);
    let change = |spec: &mut EventTypeSpec| *spec = EventTypeSpec::default();
    let cleared = store.update_event_type(who, project, name, change).await.unwrap();
    assert_eq!(
        (cleared.spec.description.as_str(), &cleared.spec.schema, cleared.spec.deprecated),
        ("", &None, false)
    );
    assert_eq!(store.get_event_type(who, project, name).await.unwrap(), cleared);
    store.delete_event_type(who, project, name).await.unwrap();
    assert_not_found(store.get_event_type(who, project, name).await, "event type");
    assert_not_found(store.delete_event_type(who, project, name).await, "event type");
    assert_not_found(store.update_event_type(who, project, name, |_| {}).await, "event type");
    // The name is available again.
    assert_ne!(create(&store, &tenant, "order.paid", None).await.id, made.id);

    let changes = store.changes(0, 100).await.unwrap();
    let of_types: Vec<_> =
        changes.iter().filter(|change| change.kind == Some(ChangeKind::EventType)).collect();
    assert_eq!(of_types.len(), 5);
    assert!(of_types.iter().all(|change| change.project == Some(project)));
    let before = of_types[3].before.as_deref().unwrap();
    assert!(before.contains("order.paid") && of_types[3].after.is_none());
    assert!(of_types[0].after.as_deref().unwrap().contains("schema_sha256\":\""));
}

pub async fn have_one_entry_for_a_name_and_a_request(database: &TestDatabase) {
    let store = database.store().await;
    let (one, two) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let (who, project) = (&one.principal, one.project.id);
    let first =
        store.create_event_type(who, project, new("a.b", Some(SCHEMA)), Some("r1")).await.unwrap();
    assert_eq!(
        store.create_event_type(who, project, new("a.b", Some(SCHEMA)), Some("r1")).await.unwrap(),
        first
    );
    let conflict = store.create_event_type(who, project, new("a.b", None), Some("r1")).await;
    assert_reason(conflict, Reason::IdempotencyConflict);
    assert_reason(
        store.create_event_type(who, project, new("a.b", None), None).await,
        Reason::AlreadyExists,
    );
    create(&store, &one, "A.b", None).await;
    create(&store, &two, "a.b", None).await;
    store.delete_event_type(who, project, &first.fixed.event_type).await.unwrap();
    let gone = store.create_event_type(who, project, new("a.b", Some(SCHEMA)), Some("r1")).await;
    assert_not_found(gone, "event type");
}

pub async fn are_listed_without_their_schemas(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    for name in ["c", "a", "b"] {
        create(&store, &tenant, name, Some(SCHEMA)).await;
    }
    let list = async |from| {
        let page =
            store.list_event_types(who, project, PageRequest { size: 2, from }).await.unwrap();
        assert!(
            page.items
                .iter()
                .all(|entry| entry.spec.schema.is_none() && entry.fixed.project == project)
        );
        (
            page.items.iter().map(|entry| entry.fixed.event_type.to_string()).collect::<Vec<_>>(),
            page.next,
        )
    };
    let (first, next) = list(None).await;
    let (second, end) = list(next).await;
    assert_eq!(
        (first, second, end),
        (vec!["c".to_owned(), "a".to_owned()], vec!["b".to_owned()], None)
    );
}

pub async fn of_others_do_not_exist(database: &TestDatabase) {
    let store = database.store().await;
    let (own, foreign) = (tenant(&store, "a").await, tenant(&store, "b").await);
    let theirs = create(&store, &foreign, "a.b", Some(SCHEMA)).await;
    let name = &theirs.fixed.event_type;
    let elsewhere = Principal { project: Some(own.project.id), ..foreign.principal.clone() };
    for who in [&own.principal, &elsewhere] {
        let project = foreign.project.id;
        assert_not_found(store.get_event_type(who, project, name).await, "project");
        assert_not_found(store.list_event_types(who, project, first_page(10)).await, "project");
        assert_not_found(store.update_event_type(who, project, name, |_| {}).await, "project");
        assert_not_found(store.delete_event_type(who, project, name).await, "project");
        assert_not_found(
            store.create_event_type(who, project, new("c", None), None).await,
            "project",
        );
    }
    assert_not_found(
        store.get_event_type(&own.principal, own.project.id, name).await,
        "event type",
    );
    // A key that is bound to an owner of endpoints may read the catalog, but not change it.
    let owner = Principal { owner: Some("ann".to_owned()), ..foreign.bound() };
    assert_eq!(store.get_event_type(&owner, foreign.project.id, name).await.unwrap(), theirs);
    assert_eq!(
        store
            .list_event_types(&owner, foreign.project.id, first_page(10))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_reason(
        store.delete_event_type(&owner, foreign.project.id, name).await,
        Reason::BeyondOwnScope,
    );
    assert_reason(
        store.create_event_type(&owner, foreign.project.id, new("c", None), None).await,
        Reason::BeyondOwnScope,
    );
    store.delete_project(&foreign.principal, foreign.project.id).await.unwrap();
    assert_not_found(
        store.get_event_type(&foreign.principal, foreign.project.id, name).await,
        "project",
    );
}

pub async fn are_bounded_in_number(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let first = create(&store, &tenant, "first", None).await;
    let row = event_type::Entity::find_by_id(first.id.0).one(store.read()).await.unwrap().unwrap();
    let copy = |number: u32| {
        let mut copy = row.clone().into_active_model();
        (copy.id, copy.event_type) =
            (Set(Uuid::from_u128(number.into())), Set(format!("copy-{number}")));
        copy
    };
    let numbers: Vec<u32> = (2..=limits::EVENT_TYPES).collect();
    for some in numbers.chunks(500) {
        let copies = event_type::Entity::insert_many(some.iter().map(|number| copy(*number)));
        copies.exec_without_returning(store.write()).await.unwrap();
    }
    let full = store
        .create_event_type(&tenant.principal, tenant.project.id, new("one.more", None), None)
        .await;
    assert_reason(full, Reason::FailedPrecondition);
    store
        .delete_event_type(&tenant.principal, tenant.project.id, &first.fixed.event_type)
        .await
        .unwrap();
    create(&store, &tenant, "one.more", None).await;
}

pub async fn and_their_mode_are_followed_by_the_directory(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    let mode = async || {
        directory.refresh().await.unwrap();
        directory.project(who, project).await.unwrap().spec.schema_validation
    };
    assert_eq!(mode().await, SchemaValidation::Off);
    for wanted in [SchemaValidation::Reject, SchemaValidation::Warn, SchemaValidation::Off] {
        let change = |spec: &mut ProjectSpec| spec.schema_validation = wanted;
        assert_eq!(
            store.update_project(who, project, change).await.unwrap().spec.schema_validation,
            wanted
        );
        assert_eq!(
            (mode().await, store.get_project(who, project).await.unwrap().spec.schema_validation),
            (wanted, wanted)
        );
    }

    let entry = async |name: &str| {
        directory.refresh().await.unwrap();
        directory.catalog(project).await.unwrap().get(name)
    };
    assert_eq!(entry("a.b").await, None);
    let made = create(&store, &tenant, "a.b", Some(SCHEMA)).await;
    let first = entry("a.b").await.unwrap();
    assert_eq!(
        (first.id, first.updated_at, first.deprecated, first.has_schema),
        (made.id, made.updated_at, false, true)
    );
    assert_eq!(
        directory.event_type_schema(Some(Holder::of(who)), made.id).await.unwrap().as_deref(),
        Some(SCHEMA)
    );
    let cached: std::sync::Arc<Catalog> = directory.catalog(project).await.unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&cached, &directory.catalog(project).await.unwrap()),
        "it is not cached"
    );
    let change = |spec: &mut EventTypeSpec| (spec.schema, spec.deprecated) = (None, true);
    store.update_event_type(who, project, &made.fixed.event_type, change).await.unwrap();
    let second = entry("a.b").await.unwrap();
    assert!(second.updated_at > first.updated_at && second.deprecated && !second.has_schema);
    assert_eq!(directory.event_type_schema(Some(Holder::of(who)), made.id).await.unwrap(), None);
    store.delete_event_type(who, project, &made.fixed.event_type).await.unwrap();
    assert_eq!(entry("a.b").await, None);
    create(&store, &tenant, "a.b", None).await;
    assert!(entry("a.b").await.is_some());
    store.delete_project(who, project).await.unwrap();
    assert_eq!(entry("a.b").await, None);
}
