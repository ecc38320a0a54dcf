//! Event types through their service: creating, reading, changing, deleting, refusals, and the
//! project's setting.

use outrider_model::{ProjectId, Reason, Scope};
use outrider_proto::admin::{
    CreateEventTypeRequest, DeleteEventTypeRequest, EventType, GetEventTypeRequest,
    ListEventTypesRequest, Project, SchemaValidation, UpdateEventTypeRequest, UpdateProjectRequest,
};

use crate::harness::{World, fields, mask, ok, reason};

const SCHEMA: &str = "{ \"type\": \"object\",\n  \"properties\": {\"n\": {\"maximum\": 1.0e2}} }";

fn create(project: ProjectId, event_type: &str, schema: &str) -> CreateEventTypeRequest {
    let definition = EventType {
        event_type: event_type.to_owned(),
        schema: schema.to_owned(),
        ..Default::default()
    };
    CreateEventTypeRequest {
        project_id: project.to_string(),
        definition: Some(definition),
        request_id: String::new(),
    }
}

fn get(project: ProjectId, event_type: &str) -> GetEventTypeRequest {
    GetEventTypeRequest { project_id: project.to_string(), event_type: event_type.to_owned() }
}

fn update(
    project: ProjectId,
    event_type: &str,
    definition: EventType,
    paths: &[&str],
) -> UpdateEventTypeRequest {
    let (project_id, event_type) = (project.to_string(), event_type.to_owned());
    UpdateEventTypeRequest {
        project_id,
        event_type,
        definition: Some(definition),
        update_mask: mask(paths),
    }
}

fn delete(project: ProjectId, event_type: &str) -> DeleteEventTypeRequest {
    DeleteEventTypeRequest { project_id: project.to_string(), event_type: event_type.to_owned() }
}

fn list(project: ProjectId) -> ListEventTypesRequest {
    ListEventTypesRequest { project_id: project.to_string(), ..Default::default() }
}

#[tokio::test]
async fn an_event_type_is_created_changed_and_deleted() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).event_types;
    let made = ok(client.create_event_type(create(project, "order.paid", SCHEMA)).await)
        .definition
        .unwrap();
    assert_eq!(
        (made.project_id, made.event_type.as_str(), made.schema.as_str()),
        (project.to_string(), "order.paid", SCHEMA)
    );
    let deprecated = EventType { deprecated: true, ..Default::default() };
    let changed =
        ok(client.update_event_type(update(project, "order.paid", deprecated, &[])).await)
            .definition
            .unwrap();
    assert_eq!((changed.deprecated, changed.schema.as_str()), (true, SCHEMA));
    assert_eq!(
        ok(client.get_event_type(get(project, "order.paid")).await).definition,
        Some(changed)
    );
    let cleared = update(project, "order.paid", EventType::default(), &["*"]);
    let cleared = ok(client.update_event_type(cleared).await).definition.unwrap();
    assert_eq!((cleared.deprecated, cleared.schema.as_str()), (false, ""));
    ok(client.delete_event_type(delete(project, "order.paid")).await);
    assert_eq!(reason(client.get_event_type(get(project, "order.paid")).await), Reason::NotFound);
    assert_eq!(
        reason(client.delete_event_type(delete(project, "order.paid")).await),
        Reason::NotFound
    );
    assert_eq!(world.queue.count(), 4);
}

#[tokio::test]
async fn pages_and_repeated_requests_are_those_of_other_nouns() {
    let world = World::new().await;
    let (project, other) = (world.project("Shop").await, world.project("Other").await);
    let mut client = world.client(&world.admin).event_types;
    for name in ["c", "a", "b"] {
        let request = CreateEventTypeRequest {
            request_id: format!("r-{name}"),
            ..create(project, name, SCHEMA)
        };
        let first = ok(client.create_event_type(request.clone()).await);
        assert_eq!(ok(client.create_event_type(request).await), first);
    }
    assert_eq!(
        reason(client.create_event_type(create(project, "a", "")).await),
        Reason::AlreadyExists
    );
    let page = |page_token: &str| ListEventTypesRequest {
        page_size: 2,
        page_token: page_token.to_owned(),
        ..list(project)
    };
    let names = |types: &[EventType]| {
        types.iter().map(|entry| entry.event_type.clone()).collect::<String>()
    };
    let first = ok(client.list_event_types(page("")).await);
    let second = ok(client.list_event_types(page(&first.next_page_token)).await);
    assert_eq!(
        (names(&first.event_types).as_str(), names(&second.event_types).as_str()),
        ("ca", "b")
    );
    assert_eq!(
        ok(client.list_event_types(page(&second.previous_page_token)).await).event_types,
        first.event_types
    );
    assert!(first.event_types.iter().all(|entry| entry.schema.is_empty()));
    let elsewhere = ListEventTypesRequest { page_token: first.next_page_token, ..list(other) };
    assert_eq!(reason(client.list_event_types(elsewhere).await), Reason::InvalidPageToken);
}

#[tokio::test]
async fn wrong_fields_and_wrong_schemas_are_named_by_their_path() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).event_types;
    let empty = client.create_event_type(CreateEventTypeRequest::default()).await;
    assert_eq!(fields(empty), ["project_id", "definition.event_type"]);
    for (schema, field) in [
        ("{", "definition.schema"),
        ("[]", "definition.schema"),
        (r#"{"properties": {"a": {"type": "money"}}}"#, "definition.schema/properties/a/type"),
        (r#"{"items": {"$ref": "https://example.com/s"}}"#, "definition.schema/items/$ref"),
        (r#"{"items": {"pattern": "(?=a)"}}"#, "definition.schema/items/pattern"),
        (&format!("{{\"description\": \"{}\"}}", "x".repeat(64 * 1024)), "definition.schema"),
    ] {
        assert_eq!(
            fields(client.create_event_type(create(project, "a", schema)).await),
            [field],
            "{schema:.80}"
        );
    }
    ok(client.create_event_type(create(project, "a", SCHEMA)).await);
    let broken = EventType { schema: "{\"type\": 1}".to_owned(), ..Default::default() };
    assert_eq!(
        fields(client.update_event_type(update(project, "a", broken, &[])).await),
        ["definition.schema/type"]
    );
    for name in ["", "a b", "*", "a.*"] {
        assert_eq!(fields(client.get_event_type(get(project, name)).await), ["event_type"]);
        assert_eq!(
            fields(client.create_event_type(create(project, name, "")).await),
            ["definition.event_type"]
        );
    }
    let renamed = EventType { event_type: "b".to_owned(), ..Default::default() };
    let refused =
        fields(client.update_event_type(update(project, "a", renamed, &["event_type"])).await);
    assert_eq!(refused, ["definition.event_type", "update_mask"]);
    assert_eq!(
        ok(client.get_event_type(get(project, "a")).await).definition.unwrap().schema,
        SCHEMA
    );
}

#[tokio::test]
async fn scopes_and_projects_keep_others_out() {
    let world = World::new().await;
    let (own, other) = (world.project("own").await, world.project("other").await);
    ok(world.client(&world.admin).event_types.create_event_type(create(own, "a", "")).await);
    for principal in [world.outsider().await, world.bound(other)] {
        let mut client = world.client(&principal).event_types;
        assert_eq!(reason(client.get_event_type(get(own, "a")).await), Reason::NotFound);
        assert_eq!(reason(client.list_event_types(list(own)).await), Reason::NotFound);
        assert_eq!(reason(client.create_event_type(create(own, "b", "")).await), Reason::NotFound);
        assert_eq!(
            reason(client.update_event_type(update(own, "a", EventType::default(), &["*"])).await),
            Reason::NotFound
        );
        assert_eq!(reason(client.delete_event_type(delete(own, "a")).await), Reason::NotFound);
    }
    let mut reader = world.client(&world.limited(&[Scope::EventTypesRead])).event_types;
    ok(reader.get_event_type(get(own, "a")).await);
    ok(reader.list_event_types(list(own)).await);
    assert_eq!(reason(reader.delete_event_type(delete(own, "a")).await), Reason::MissingScope);
    let mut writer = world.client(&world.limited(&[Scope::EventTypesWrite])).event_types;
    assert_eq!(reason(writer.get_event_type(get(own, "a")).await), Reason::MissingScope);
    ok(writer.delete_event_type(delete(own, "a")).await);
}

#[tokio::test]
async fn a_project_says_how_it_validates() {
    let world = World::new().await;
    let id = world.project("Shop").await.to_string();
    let mut client = world.client(&world.admin).projects;
    let update = |number: i32, paths: &[&str]| {
        let project = Some(Project { schema_validation: number, ..Default::default() });
        UpdateProjectRequest { project_id: id.clone(), project, update_mask: mask(paths) }
    };
    let reject = SchemaValidation::Reject.into();
    for (number, paths, expected) in [
        (reject, &[][..], SchemaValidation::Reject),
        (0, &["name", "schema_validation"][1..], SchemaValidation::Off),
        (SchemaValidation::Warn.into(), &["schema_validation"], SchemaValidation::Warn),
    ] {
        let changed = ok(client.update_project(update(number, paths)).await).project.unwrap();
        assert_eq!((changed.schema_validation(), changed.name.as_str()), (expected, "Shop"));
    }
    assert_eq!(
        fields(client.update_project(update(9, &["schema_validation"])).await),
        ["project.schema_validation"]
    );
}
