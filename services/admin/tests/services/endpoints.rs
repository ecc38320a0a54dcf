use std::collections::HashMap;

use outrider_model::{EndpointId, ProjectId, Reason, Scope, SigningSecret, Timestamp};
use outrider_proto::admin::{
    CreateEndpointRequest, DeleteEndpointRequest, Endpoint, EndpointState, GetEndpointRequest,
    GetEndpointSecretRequest, HttpTarget, ListEndpointsRequest, UpdateEndpointRequest,
    endpoint::Target,
};

use crate::harness::{World, fields, mask, ok, reason};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn http(url: &str) -> Option<Target> {
    Some(Target::Http(HttpTarget { url: url.to_owned() }))
}

fn create(project: ProjectId, url: &str) -> CreateEndpointRequest {
    let endpoint = Some(Endpoint { target: http(url), ..Default::default() });
    CreateEndpointRequest { project_id: project.to_string(), endpoint, ..Default::default() }
}

fn owned(project: ProjectId, owner: &str) -> CreateEndpointRequest {
    let endpoint = Some(Endpoint {
        target: http("https://example.com"),
        owner_id: owner.to_owned(),
        ..Default::default()
    });
    CreateEndpointRequest { endpoint, ..create(project, "") }
}

fn get(project: ProjectId, id: impl ToString) -> GetEndpointRequest {
    GetEndpointRequest { project_id: project.to_string(), endpoint_id: id.to_string() }
}

fn secret(project: ProjectId, id: impl ToString) -> GetEndpointSecretRequest {
    GetEndpointSecretRequest { project_id: project.to_string(), endpoint_id: id.to_string() }
}

fn update(
    project: ProjectId,
    id: impl ToString,
    endpoint: Endpoint,
    paths: &[&str],
) -> UpdateEndpointRequest {
    let (project_id, endpoint_id) = (project.to_string(), id.to_string());
    UpdateEndpointRequest {
        project_id,
        endpoint_id,
        endpoint: Some(endpoint),
        update_mask: mask(paths),
    }
}

fn delete(project: ProjectId, id: impl ToString) -> DeleteEndpointRequest {
    DeleteEndpointRequest { project_id: project.to_string(), endpoint_id: id.to_string() }
}

#[tokio::test]
async fn an_endpoint_is_created_with_defaults_and_deleted() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).endpoints;
    let made = ok(client.create_endpoint(create(project, "HTTPS://Example.com:443")).await);
    let endpoint = made.endpoint.unwrap();
    assert_eq!(endpoint.target, http("https://example.com/"));
    assert_eq!((endpoint.state(), endpoint.max_in_flight), (EndpointState::Active, 64));
    assert_eq!(endpoint.timeout.map(|timeout| timeout.seconds), Some(15));
    assert_eq!(endpoint.project_id, project.to_string());
    assert_eq!(SigningSecret::parse(&made.secret).unwrap().expose().len(), 32);

    let id = &endpoint.endpoint_id;
    assert_eq!(ok(client.get_endpoint(get(project, id)).await).endpoint, Some(endpoint.clone()));
    assert_eq!(ok(client.get_endpoint_secret(secret(project, id)).await).secret, made.secret);
    let another = ok(client.create_endpoint(create(project, "https://example.com")).await);
    assert_ne!(another.secret, made.secret);

    ok(client.delete_endpoint(delete(project, id)).await);
    assert_eq!(reason(client.get_endpoint(get(project, id)).await), Reason::NotFound);
    assert_eq!(reason(client.get_endpoint_secret(secret(project, id)).await), Reason::NotFound);
    assert_eq!(world.queue.count(), 3);
}

#[tokio::test]
async fn a_given_id_and_secret_are_kept() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).endpoints;
    let id = EndpointId::new(Timestamp(1_700_000_000_000_000), 1).to_string();
    let mut request = create(project, "https://example.com");
    request.secret = SECRET.to_owned();
    request.endpoint.as_mut().unwrap().endpoint_id.clone_from(&id);
    let made = ok(client.create_endpoint(request.clone()).await);
    assert_eq!((made.endpoint.unwrap().endpoint_id, made.secret.as_str()), (id.clone(), SECRET));
    assert_eq!(ok(client.get_endpoint_secret(secret(project, &id)).await).secret, SECRET);
    assert_eq!(reason(client.create_endpoint(request).await), Reason::AlreadyExists);
}

#[tokio::test]
async fn a_repeated_request_answers_the_first_endpoint_and_its_secret() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).endpoints;
    let request = CreateEndpointRequest {
        request_id: "r-1".to_owned(),
        ..create(project, "https://example.com")
    };
    let first = ok(client.create_endpoint(request.clone()).await);
    assert_eq!(ok(client.create_endpoint(request.clone()).await), first);
    let elsewhere = CreateEndpointRequest {
        request_id: "r-1".to_owned(),
        ..create(project, "https://example.org")
    };
    assert_eq!(reason(client.create_endpoint(elsewhere).await), Reason::IdempotencyConflict);
    let other_secret = CreateEndpointRequest { secret: SECRET.to_owned(), ..request };
    assert_eq!(reason(client.create_endpoint(other_secret).await), Reason::IdempotencyConflict);
}

#[tokio::test]
async fn an_update_changes_what_the_mask_names() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).endpoints;
    let full = Endpoint {
        description: "first".to_owned(),
        owner_id: "customer-1".to_owned(),
        headers: HashMap::from([("X-A".to_owned(), "1".to_owned())]),
        metadata: HashMap::from([("m".to_owned(), "2".to_owned())]),
        target: http("https://example.com"),
        ..Default::default()
    };
    let request = CreateEndpointRequest { endpoint: Some(full), ..create(project, "") };
    let made = ok(client.create_endpoint(request).await).endpoint.unwrap();
    assert_eq!(made.headers, HashMap::from([("x-a".to_owned(), "1".to_owned())]));

    let id = made.endpoint_id.clone();
    let paused =
        Endpoint { state: EndpointState::Paused.into(), max_in_flight: 2, ..Default::default() };
    let changed =
        ok(client.update_endpoint(update(project, &id, paused, &[])).await).endpoint.unwrap();
    let expected = Endpoint {
        state: EndpointState::Paused.into(),
        max_in_flight: 2,
        update_time: changed.update_time,
        ..made.clone()
    };
    assert_eq!(changed, expected);

    let cleared = update(
        project,
        &id,
        Endpoint::default(),
        &["owner_id", "headers", "metadata", "description", "state"],
    );
    let cleared = ok(client.update_endpoint(cleared).await).endpoint.unwrap();
    assert_eq!(
        (cleared.owner_id.as_str(), cleared.headers.len(), cleared.metadata.len()),
        ("", 0, 0)
    );
    assert_eq!((cleared.state(), cleared.max_in_flight), (EndpointState::Active, 2));

    let moved = Endpoint { target: http("https://example.org/new"), ..Default::default() };
    let moved = ok(client.update_endpoint(update(project, &id, moved, &["http.url"])).await)
        .endpoint
        .unwrap();
    assert_eq!(moved.target, http("https://example.org/new"));
    assert_eq!(ok(client.get_endpoint(get(project, &id)).await).endpoint, Some(moved));
}

#[tokio::test]
async fn lists_are_of_one_owner_and_so_are_their_tokens() {
    let world = World::new().await;
    let (project, other) = (world.project("Shop").await, world.project("Other").await);
    let mut client = world.client(&world.admin).endpoints;
    for owner in ["a", "a", "b"] {
        ok(client.create_endpoint(owned(project, owner)).await);
    }
    let list = |project: ProjectId, owner: &str, token: &str| ListEndpointsRequest {
        project_id: project.to_string(),
        page_size: 1,
        page_token: token.to_owned(),
        owner_id: owner.to_owned(),
    };
    let first = ok(client.list_endpoints(list(project, "a", "")).await);
    let token = &first.next_page_token;
    let second = ok(client.list_endpoints(list(project, "a", token)).await);
    assert_eq!((second.endpoints.len(), second.next_page_token.as_str()), (1, ""));
    assert_eq!(second.endpoints[0].owner_id, "a");
    assert_ne!(first.endpoints, second.endpoints);
    assert_eq!(
        reason(client.list_endpoints(list(project, "b", token)).await),
        Reason::InvalidPageToken
    );
    assert_eq!(
        reason(client.list_endpoints(list(project, "", token)).await),
        Reason::InvalidPageToken
    );
    assert_eq!(
        reason(client.list_endpoints(list(other, "a", token)).await),
        Reason::InvalidPageToken
    );
    assert_eq!(fields(client.list_endpoints(list(project, "a b", "")).await), ["owner_id"]);
}

#[tokio::test]
async fn endpoints_of_others_do_not_exist() {
    let world = World::new().await;
    let (own, other) = (world.project("own").await, world.project("other").await);
    let made = ok(world
        .client(&world.admin)
        .endpoints
        .create_endpoint(create(own, "https://example.com"))
        .await);
    let id = made.endpoint.unwrap().endpoint_id;
    let list = |project: ProjectId| ListEndpointsRequest {
        project_id: project.to_string(),
        ..Default::default()
    };
    for (principal, project) in
        [(world.outsider().await, own), (world.bound(other), own), (world.admin.clone(), other)]
    {
        let mut client = world.client(&principal).endpoints;
        let paused = Endpoint { state: EndpointState::Paused.into(), ..Default::default() };
        assert_eq!(reason(client.get_endpoint(get(project, &id)).await), Reason::NotFound);
        assert_eq!(
            reason(client.get_endpoint_secret(secret(project, &id)).await),
            Reason::NotFound
        );
        assert_eq!(
            reason(client.update_endpoint(update(project, &id, paused, &[])).await),
            Reason::NotFound
        );
        assert_eq!(reason(client.delete_endpoint(delete(project, &id)).await), Reason::NotFound);
    }
    let mut outsider = world.client(&world.outsider().await).endpoints;
    assert_eq!(reason(outsider.list_endpoints(list(own)).await), Reason::NotFound);
    assert_eq!(
        reason(outsider.create_endpoint(create(own, "https://example.com")).await),
        Reason::NotFound
    );
    let nowhere = create(ProjectId::new(Timestamp(0), 0), "https://example.com");
    assert_eq!(
        reason(world.client(&world.admin).endpoints.create_endpoint(nowhere).await),
        Reason::NotFound
    );
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut client = world.client(&world.admin).endpoints;
    for url in [
        "http://127.0.0.1/",
        "https://user:pass@example.com/",
        "https://169.254.169.254/",
        "file:///etc/passwd",
    ] {
        assert_eq!(
            fields(client.create_endpoint(create(project, url)).await),
            ["endpoint.http.url"],
            "{url}"
        );
    }
    let short = CreateEndpointRequest {
        secret: "whsec_c2hvcnQ=".to_owned(),
        ..create(project, "https://example.com")
    };
    let status = client.create_endpoint(short.clone()).await.unwrap_err();
    assert!(!status.message().contains("c2hvcnQ"), "{}", status.message());
    assert_eq!(fields(client.create_endpoint(short).await), ["secret"]);
    assert_eq!(
        fields(client.create_endpoint(CreateEndpointRequest::default()).await),
        ["project_id", "endpoint.http.url"]
    );
    assert_eq!(
        fields(client.get_endpoint(GetEndpointRequest::default()).await),
        ["project_id", "endpoint_id"]
    );

    let made =
        ok(client.create_endpoint(create(project, "https://example.com")).await).endpoint.unwrap();
    let local = Endpoint { target: http("http://localhost"), ..Default::default() };
    let local = update(project, &made.endpoint_id, local, &["http"]);
    assert_eq!(fields(client.update_endpoint(local).await), ["endpoint.http.url"]);
    for path in ["secret", "endpoint_id", "create_time"] {
        let wrong = update(project, &made.endpoint_id, Endpoint::default(), &[path]);
        assert_eq!(fields(client.update_endpoint(wrong).await), ["update_mask"], "{path}");
    }
    assert_eq!(world.queue.count(), 1);
}

#[tokio::test]
async fn a_reader_sees_no_secret() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let made = ok(world
        .client(&world.admin)
        .endpoints
        .create_endpoint(create(project, "https://example.com"))
        .await);
    let id = made.endpoint.unwrap().endpoint_id;
    let mut reader = world.client(&world.limited(&[Scope::EndpointsRead])).endpoints;
    ok(reader.get_endpoint(get(project, &id)).await);
    assert_eq!(
        reason(reader.get_endpoint_secret(secret(project, &id)).await),
        Reason::MissingScope
    );
}

#[tokio::test]
async fn values_are_shown_with_the_scope_that_shows_secrets_and_never_in_lists() {
    let world = World::new().await;
    let project = world.project("Shop").await;
    let mut request = create(project, "https://example.com/hook?key=secret");
    request.endpoint.as_mut().unwrap().headers =
        HashMap::from([("X-Key".to_owned(), "secret".to_owned())]);
    let made =
        ok(world.client(&world.admin).endpoints.create_endpoint(request).await).endpoint.unwrap();
    assert_eq!(
        (&made.target, made.headers["x-key"].as_str()),
        (&http("https://example.com/hook?key=secret"), "secret")
    );
    let (id, mut masked) = (made.endpoint_id.clone(), made.clone());
    masked.target = http("https://example.com/hook?…");
    masked.headers = HashMap::from([("x-key".to_owned(), "…".to_owned())]);

    let list = ListEndpointsRequest { project_id: project.to_string(), ..Default::default() };
    for scopes in [
        &[Scope::EndpointsRead][..],
        &[Scope::EndpointsRead, Scope::EndpointsWrite],
        &[Scope::Admin],
    ] {
        let mut client = world.client(&world.limited(scopes)).endpoints;
        // The scope that shows one kind of secrets shows the other.
        let shows_secrets = client.get_endpoint_secret(secret(project, &id)).await.is_ok();
        let read = ok(client.get_endpoint(get(project, &id)).await).endpoint.unwrap();
        assert_eq!(&read, if shows_secrets { &made } else { &masked }, "{scopes:?}");
        assert_eq!(shows_secrets, scopes.len() == 2 || scopes[0] == Scope::Admin);
        assert_eq!(
            ok(client.list_endpoints(list.clone()).await).endpoints,
            [masked.clone()],
            "{scopes:?}"
        );
    }

    // Masked values from a reader do not overwrite stored values, and a field that is named alone
    // changes alone.
    let mut client = world.client(&world.admin).endpoints;
    let sent_back = Endpoint { description: "changed".to_owned(), ..masked.clone() };
    for paths in [&[][..], &["*"], &["headers", "http.url"]] {
        let status = client.update_endpoint(update(project, &id, sent_back.clone(), paths)).await;
        assert_eq!(
            fields(status),
            ["endpoint.http.url", r#"endpoint.headers["x-key"]"#],
            "{paths:?}"
        );
    }
    let changed =
        ok(client.update_endpoint(update(project, &id, sent_back, &["description"])).await)
            .endpoint
            .unwrap();
    assert_eq!(
        (changed.description.as_str(), &changed.target, &changed.headers),
        ("changed", &made.target, &made.headers)
    );
}
