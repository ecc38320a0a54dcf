use outrider_model::{ProjectId, Reason, Timestamp};
use outrider_proto::admin::{
    CreateProjectRequest, DeleteProjectRequest, GetProjectRequest, ListProjectsRequest, Project,
    UpdateProjectRequest,
};

use crate::harness::{World, fields, mask, ok, reason};

fn create(name: &str, request_id: &str) -> CreateProjectRequest {
    let project = Some(Project { name: name.to_owned(), ..Default::default() });
    CreateProjectRequest { project, request_id: request_id.to_owned() }
}

fn get(id: impl ToString) -> GetProjectRequest {
    GetProjectRequest { project_id: id.to_string() }
}

fn rename(id: impl ToString, name: &str) -> UpdateProjectRequest {
    let project = Some(Project { name: name.to_owned(), ..Default::default() });
    UpdateProjectRequest { project_id: id.to_string(), project, update_mask: mask(&["name"]) }
}

fn delete(id: impl ToString) -> DeleteProjectRequest {
    DeleteProjectRequest { project_id: id.to_string() }
}

#[tokio::test]
async fn a_project_is_created_renamed_and_deleted() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    let made = ok(client.create_project(create("Shop", "")).await).project.unwrap();
    assert_eq!(made.organization_id, world.admin.organization.to_string());
    assert_eq!(ok(client.get_project(get(&made.project_id)).await).project, Some(made.clone()));
    let renamed =
        ok(client.update_project(rename(&made.project_id, "Store")).await).project.unwrap();
    assert_eq!((renamed.name.as_str(), &renamed.create_time), ("Store", &made.create_time));
    ok(client.delete_project(delete(&made.project_id)).await);
    assert_eq!(reason(client.get_project(get(&made.project_id)).await), Reason::NotFound);
    assert_eq!(reason(client.delete_project(delete(&made.project_id)).await), Reason::NotFound);
    assert_eq!(world.queue.count(), 3);
}

#[tokio::test]
async fn a_given_id_is_kept_once() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    let id = ProjectId::new(Timestamp(1_700_000_000_000_000), 1).to_string();
    let project =
        Some(Project { project_id: id.clone(), name: "Shop".to_owned(), ..Default::default() });
    let request = CreateProjectRequest { project, ..Default::default() };
    assert_eq!(ok(client.create_project(request.clone()).await).project.unwrap().project_id, id);
    assert_eq!(reason(client.create_project(request).await), Reason::AlreadyExists);
}

#[tokio::test]
async fn a_repeated_request_answers_the_first_project() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    let first = ok(client.create_project(create("Shop", "r-1")).await);
    assert_eq!(ok(client.create_project(create("Shop", "r-1")).await), first);
    assert_eq!(
        reason(client.create_project(create("Store", "r-1")).await),
        Reason::IdempotencyConflict
    );
    assert_eq!(ok(client.list_projects(ListProjectsRequest::default()).await).projects.len(), 1);
}

#[tokio::test]
async fn pages_go_forth_and_back() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    for name in ["a", "b", "c"] {
        ok(client.create_project(create(name, "")).await);
    }
    let names = |projects: &[Project]| {
        projects.iter().map(|project| project.name.clone()).collect::<String>()
    };
    let page =
        |page_token: &str| ListProjectsRequest { page_size: 2, page_token: page_token.to_owned() };
    let first = ok(client.list_projects(page("")).await);
    assert_eq!((names(&first.projects).as_str(), first.previous_page_token.as_str()), ("ab", ""));
    let second = ok(client.list_projects(page(&first.next_page_token)).await);
    assert_eq!((names(&second.projects).as_str(), second.next_page_token.as_str()), ("c", ""));
    let back = ok(client.list_projects(page(&second.previous_page_token)).await);
    assert_eq!(back.projects, first.projects);
    assert_eq!(reason(client.list_projects(page("nonsense")).await), Reason::InvalidPageToken);
    let large = ListProjectsRequest { page_size: 501, ..Default::default() };
    assert_eq!(fields(client.list_projects(large).await), ["page_size"]);
}

#[tokio::test]
async fn projects_of_others_do_not_exist() {
    let world = World::new().await;
    let (own, other) = (world.project("own").await, world.project("other").await);
    for principal in [world.outsider().await, world.bound(other)] {
        let mut client = world.client(&principal).projects;
        assert_eq!(reason(client.get_project(get(own)).await), Reason::NotFound);
        assert_eq!(reason(client.update_project(rename(own, "mine")).await), Reason::NotFound);
        assert_eq!(reason(client.delete_project(delete(own)).await), Reason::NotFound);
        let listed = ok(client.list_projects(ListProjectsRequest::default()).await).projects;
        assert!(listed.iter().all(|project| project.project_id == other.to_string()));
    }
    let mut bound = world.client(&world.bound(other)).projects;
    assert_eq!(reason(bound.create_project(create("more", "")).await), Reason::BeyondOwnScope);
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::new().await;
    let id = world.project("Shop").await;
    let mut client = world.client(&world.admin).projects;
    let project = Some(Project {
        project_id: "prj_x".to_owned(),
        name: "a\0".to_owned(),
        ..Default::default()
    });
    let request = CreateProjectRequest { project, request_id: "é".to_owned() };
    let expected = ["project.project_id", "project.name", "request_id"];
    assert_eq!(fields(client.create_project(request).await), expected);
    assert_eq!(
        fields(client.create_project(CreateProjectRequest::default()).await),
        ["project.name"]
    );
    assert_eq!(fields(client.get_project(get("")).await), ["project_id"]);
    let fixed = UpdateProjectRequest { update_mask: mask(&["organization_id"]), ..rename(id, "x") };
    assert_eq!(fields(client.update_project(fixed).await), ["update_mask"]);
}

#[tokio::test]
async fn the_organization_may_be_sent_back_but_not_changed() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    let made = ok(client.create_project(create("Shop", "")).await).project.unwrap();
    let update = |organization_id: &str| {
        let organization_id = organization_id.to_owned();
        let project = Project { organization_id, name: "New".to_owned(), ..made.clone() };
        UpdateProjectRequest {
            project_id: made.project_id.clone(),
            project: Some(project),
            update_mask: mask(&["name"]),
        }
    };
    ok(client.update_project(update(&made.organization_id)).await);
    ok(client.update_project(update("")).await);
    let other = world.outsider().await.organization.to_string();
    assert_eq!(fields(client.update_project(update(&other)).await), ["project.organization_id"]);
    let project =
        Some(Project { organization_id: other, name: "Shop".to_owned(), ..Default::default() });
    let elsewhere = CreateProjectRequest { project, ..Default::default() };
    assert_eq!(fields(client.create_project(elsewhere).await), ["project.organization_id"]);
}

#[tokio::test]
async fn an_announcement_that_hangs_delays_no_answer_for_long() {
    let world = World::new().await;
    world.queue.hang();
    let mut client = world.client(&world.admin).projects;
    let answer = tokio::time::timeout(
        std::time::Duration::from_secs(20),
        client.create_project(create("Shop", "")),
    )
    .await;
    ok(answer.expect("must be answered"));
    assert_eq!(world.queue.count(), 1);
}

#[tokio::test]
async fn payloads_are_kept_for_a_time_or_as_long_as_events() {
    let world = World::new().await;
    let mut client = world.client(&world.admin).projects;
    let length = |seconds: i64| Some(prost_types::Duration { seconds, nanos: 0 });
    let project = |seconds| {
        Some(Project {
            name: "Shop".to_owned(),
            payload_retention: length(seconds),
            ..Default::default()
        })
    };
    let request = CreateProjectRequest { project: project(60), ..Default::default() };
    let made = ok(client.create_project(request).await).project.unwrap();
    assert_eq!(made.payload_retention, length(60));
    let update = |payload_retention, paths: &[&str]| UpdateProjectRequest {
        project_id: made.project_id.clone(),
        project: Some(Project { payload_retention, ..Default::default() }),
        update_mask: mask(paths),
    };
    for (given, paths, expected) in [
        (length(86_400), &[] as &[&str], length(86_400)),
        (None, &[], length(86_400)),
        (length(3_650 * 86_400), &["payload_retention"], length(3_650 * 86_400)),
        (None, &["payload_retention"], None),
    ] {
        let changed = ok(client.update_project(update(given, paths)).await).project.unwrap();
        assert_eq!(changed.payload_retention, expected);
    }
    for seconds in [-1, 0, 59, 3_650 * 86_400 + 1, i64::MAX] {
        assert_eq!(
            fields(client.update_project(update(length(seconds), &[])).await),
            ["project.payload_retention"]
        );
        let request = CreateProjectRequest { project: project(seconds), ..Default::default() };
        assert_eq!(fields(client.create_project(request).await), ["project.payload_retention"]);
    }
}
