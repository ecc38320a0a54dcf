//! Settings of endpoints and projects while two versions of Outrider run.

use outrider_model::Reason;
use sea_orm::EntityTrait;

use crate::{
    Store,
    configuration::entity::{endpoint, project},
    testing::{TestDatabase, tenant::*},
};

/// The settings of the only endpoint and of the only project.
async fn stored(store: &Store) -> [Option<String>; 2] {
    let endpoint = endpoint::Entity::find().one(store.read()).await.unwrap().unwrap();
    let project = project::Entity::find().one(store.read()).await.unwrap().unwrap();
    [endpoint.settings, project.settings]
}

async fn write(database: &TestDatabase, settings: &str) {
    for table in ["endpoints", "projects"] {
        database.execute(&format!("UPDATE {table} SET settings = '{settings}'")).await;
    }
}

pub async fn are_absent_from_the_rows_of_the_version_before(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    tenant.endpoint(&store).await;
    assert_eq!(stored(&store).await, [None, None]);
}

pub async fn of_later_versions_are_kept(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let endpoint = tenant.endpoint(&store).await;
    let settings = r#"{"later":{"fields":["x"]},"version":1}"#;
    write(database, settings).await;
    let read = store.get_endpoint(who, project, endpoint.id).await.unwrap();
    assert_eq!((read.id, &read.spec.target), (endpoint.id, &endpoint.spec.target));
    store
        .update_endpoint(who, project, endpoint.id, |spec| spec.description.clear())
        .await
        .unwrap();
    store.update_project(who, project, |spec| spec.name = "new".to_owned()).await.unwrap();
    let kept = Some(settings.to_owned());
    assert_eq!(stored(&store).await, [kept.clone(), kept]);
    let changes = store.changes(0, 100).await.unwrap();
    let told = changes.iter().filter_map(|change| change.after.as_deref());
    assert_eq!(told.filter(|text| text.contains(r#""later":{"fields":["x"]}"#)).count(), 2);
}

pub async fn in_a_later_form_are_refused(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let endpoint = tenant.endpoint(&store).await;
    database.execute(r#"UPDATE endpoints SET settings = '{"version":2}'"#).await;
    assert_reason(store.get_endpoint(who, project, endpoint.id).await, Reason::Internal);
    let update = store.update_endpoint(who, project, endpoint.id, |_| {});
    assert_reason(update.await, Reason::Internal);
}
