//! Values of endpoints, encrypted in their rows.

use std::{fs, time::Duration};

use outrider_model::{
    Endpoint, EndpointSpec, EndpointState, Principal, Reason, Scope, Target,
    endpoint::{MASK, has_masked_query},
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ConnectionTrait, EntityTrait, IntoActiveModel, Statement,
};

use crate::{
    Backend, Directory, DirectoryOptions, MasterKeys, Sealed, Store, StoreOptions,
    configuration::{
        endpoint_rows as rows,
        entity::{change, endpoint},
        sealing::mask_change,
    },
    connection::transaction,
    testing::{TestDatabase, tenant::*, with},
};

pub(super) const VALUES: [&str; 2] = ["header value", "query-value"];

pub(super) async fn stored(store: &Store) -> Vec<endpoint::Model> {
    endpoint::Entity::find().all(store.write()).await.unwrap()
}

/// All columns of a row, with bytes as text.
fn columns(row: &endpoint::Model) -> String {
    let sealed =
        row.sealed.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    [row.target_kind.as_str(), &row.target, &row.headers, &row.description, &row.metadata, &sealed]
        .join("\n")
}

fn shows_values(text: &str) -> bool {
    VALUES.iter().any(|value| text.contains(value))
}

fn reader(tenant: &Tenant) -> Principal {
    Principal { scopes: scope_set(&[Scope::EndpointsRead]), ..tenant.principal.clone() }
}

fn assert_masked(endpoint: &Endpoint) {
    let Target::Http { url } = &endpoint.spec.target;
    assert!(has_masked_query(url) && url.starts_with("https://example.com/hook?"), "{url}");
    assert_eq!(endpoint.spec.headers.get("x-tenant").map(String::as_str), Some(MASK));
}

pub(super) async fn with_keys(database: &TestDatabase, keys: &str) -> Store {
    let options = StoreOptions {
        master_keys: MasterKeys::parse(keys).unwrap(),
        ..database.options().clone()
    };
    Store::connect(&options).await.unwrap()
}

/// Rewrites a row as the previous version wrote it.
pub(super) async fn as_the_version_before(store: &Store, endpoint: &Endpoint) {
    let row =
        endpoint::ActiveModel { id: Unchanged(endpoint.id.0), ..rows::plain(endpoint).unwrap() };
    endpoint::Entity::update(row).exec(store.write()).await.unwrap();
}

pub async fn encrypts_values_in_their_rows_and_shows_them_to_few(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let (endpoint, other) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    let rows = stored(&store).await;
    for row in &rows {
        assert!(!shows_values(&columns(row)), "{row:?}");
        // The previous version does not know this kind and fails, so it sends nothing without
        // credentials.
        assert!(row.sealed.is_some() && row.target_kind == "http-sealed");
    }
    assert_eq!(store.get_endpoint(who, project, endpoint.id).await.unwrap(), endpoint);
    assert_masked(&store.get_endpoint(&reader(&tenant), project, endpoint.id).await.unwrap());
    for listed in store.list_endpoints(who, project, None, first_page(10)).await.unwrap().items {
        assert_masked(&listed);
    }
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    assert_eq!(directory.endpoint(endpoint.id).await.unwrap().unwrap().endpoint, endpoint);

    // A ciphertext from another row cannot be decrypted, and lists do not decrypt it.
    let find =
        |id: outrider_model::EndpointId| rows.iter().find(|row| row.id == id.0).unwrap().clone();
    let mut moved = find(other.id).into_active_model();
    moved.sealed = Set(find(endpoint.id).sealed);
    endpoint::Entity::update(moved).exec(store.write()).await.unwrap();
    assert_reason(store.get_endpoint(who, project, other.id).await, Reason::Internal);
    assert!(!directory.endpoint(other.id).await.unwrap().unwrap().is_readable);
    assert_eq!(
        store.list_endpoints(who, project, None, first_page(10)).await.unwrap().items.len(),
        2
    );

    // Values are removed when they are replaced, and with their endpoint. Deleting an endpoint
    // decrypts nothing.
    let bare = |spec: &mut EndpointSpec| {
        spec.target = Target::Http { url: "https://example.com/".to_owned() };
        spec.headers = [].into();
    };
    store.update_endpoint(who, project, endpoint.id, bare).await.unwrap();
    store.delete_endpoint(who, project, other.id).await.unwrap();
    let rows = stored(&store).await;
    assert!(rows.iter().all(|row| row.sealed.is_none()), "{rows:?}");
    assert_eq!(rows.iter().find(|row| row.id == endpoint.id.0).unwrap().target_kind, "http");
}

pub async fn takes_up_what_the_version_before_wrote(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let mut endpoints = Vec::new();
    for _ in 0..205 {
        endpoints.push(tenant.endpoint(&store).await);
    }
    let plain = new_endpoint_with(|spec| {
        spec.headers = [].into();
        spec.target = Target::Http { url: "https://b.example/".to_owned() };
    });
    let plain = store.create_endpoint(who, project, plain, None).await.unwrap();
    let gone = endpoints.pop().unwrap();
    store.delete_endpoint(who, project, gone.id).await.unwrap();
    for endpoint in endpoints.iter().chain([&gone]) {
        as_the_version_before(&store, endpoint).await;
    }
    let told = change::Entity::find().all(store.write()).await.unwrap();
    let told =
        told.into_iter().filter(|change| change.kind == "endpoint").take(3).collect::<Vec<_>>();
    for row in told {
        let after =
            row.after.clone().map(|after| after.replace(&format!("?{MASK}"), "?key=query-value"));
        assert!(after.as_deref().is_some_and(shows_values));
        let row = change::ActiveModel {
            seq: Unchanged(row.seq),
            after: Set(after),
            ..Default::default()
        };
        change::Entity::update(row).exec(store.write()).await.unwrap();
    }
    assert_eq!(stored(&store).await.iter().filter(|row| shows_values(&columns(row))).count(), 205);

    // It is read as before, and also masked where it must be.
    let first = &endpoints[0];
    assert_eq!(&store.get_endpoint(who, project, first.id).await.unwrap(), first);
    assert_masked(&store.get_endpoint(&reader(&tenant), project, first.id).await.unwrap());
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    assert_eq!(&directory.endpoint(first.id).await.unwrap().unwrap().endpoint, first);

    let sealed = store.seal().await.unwrap();
    assert_eq!(sealed, Sealed { endpoints: 205, changes: 3, ..Sealed::default() });
    for row in stored(&store).await {
        assert!(!shows_values(&columns(&row)), "{row:?}");
        assert_eq!(row.sealed.is_some(), row.id != gone.id.0 && row.id != plain.id.0);
    }
    for endpoint in &endpoints {
        assert_eq!(&store.get_endpoint(who, project, endpoint.id).await.unwrap(), endpoint);
    }
    assert_eq!(store.seal().await.unwrap(), Sealed::default());
    let told = store.changes(0, 1_000).await.unwrap();
    assert!(
        told.iter()
            .flat_map(|change| [&change.before, &change.after])
            .flatten()
            .all(|text| !shows_values(text))
    );

    // SQLite's file does not contain the old values either, once it is vacuumed.
    let Some(files) = database.directory() else { return };
    for statement in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        store.write().execute_unprepared(statement).await.unwrap();
    }
    for file in fs::read_dir(files).unwrap() {
        let path = file.unwrap().path();
        assert!(
            !shows_values(&String::from_utf8_lossy(&fs::read(&path).unwrap())),
            "{}",
            path.display()
        );
    }
}

pub async fn goes_on_while_endpoints_change(database: &TestDatabase) {
    let (store, other) = (database.store().await, database.connect().await);
    let tenant = tenant(&store, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let mut endpoints = Vec::new();
    for _ in 0..40 {
        let endpoint = tenant.endpoint(&store).await;
        as_the_version_before(&store, &endpoint).await;
        endpoints.push(endpoint);
    }
    let pause = |spec: &mut EndpointSpec| spec.state = EndpointState::Paused;
    let changes = async {
        for endpoint in &endpoints {
            other.update_endpoint(who, project, endpoint.id, pause).await.unwrap();
        }
    };
    let (one, two, ()) = tokio::join!(store.seal(), other.seal(), changes);
    assert_eq!((one.unwrap().unreadable, two.unwrap().unreadable), (0, 0));
    assert!(
        stored(&store).await.iter().all(|row| row.sealed.is_some() && !shows_values(&columns(row)))
    );
    for mut expected in endpoints {
        let kept = store.get_endpoint(who, project, expected.id).await.unwrap();
        expected.spec.state = EndpointState::Paused;
        expected.meta.updated_at = kept.updated_at;
        assert_eq!(kept, expected);
    }
}

/// The number of migrations back to a schema with values in plain text.
pub(super) async fn steps_back(store: &Store) -> u32 {
    let steps = store.migration_status().await.unwrap();
    u32::try_from(steps.iter().filter(|step| step.name.as_str() > "m0008_dropping").count())
        .unwrap()
}

pub async fn is_undone_when_the_schema_goes_back(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (endpoint, gone) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    store.delete_endpoint(&tenant.principal, tenant.project.id, gone.id).await.unwrap();
    // One step at a time: the last one finds a schema without later columns.
    for _ in 0..steps_back(&store).await {
        store.migrate_down(1).await.unwrap();
    }
    let read = "SELECT target_kind, target, headers FROM endpoints WHERE deleted_at IS NULL";
    let row = store
        .write()
        .query_one_raw(Statement::from_string(store.backend().into(), read))
        .await
        .unwrap()
        .unwrap();
    let column = |index: usize| row.try_get_by_index::<String>(index).unwrap();
    assert_eq!(column(0), "http");
    assert_eq!(column(1), "{\"url\":\"https://example.com/hook?key=query-value\"}");
    assert_eq!(column(2), "{\"x-tenant\":\"header value\"}");
    let of_others = "SELECT count(*) FROM endpoints WHERE target_kind <> 'http'";
    let others = store
        .write()
        .query_one_raw(Statement::from_string(store.backend().into(), of_others))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(others.try_get_by_index::<i64>(0).unwrap(), 0);

    store.migrate_up().await.unwrap();
    assert_eq!(store.seal().await.unwrap().endpoints, 2);
    assert_eq!(
        store.get_endpoint(&tenant.principal, tenant.project.id, endpoint.id).await.unwrap(),
        endpoint
    );
    assert!(stored(&store).await.iter().all(|row| !shows_values(&columns(row))));
}

/// The time limit for a call that waits for nothing.
pub(super) const SOON: Duration = Duration::from_secs(20);

pub async fn looks_without_the_lock_and_waits_for_it_as_long_as_it_takes(database: &TestDatabase) {
    let store = database.store().await;
    if store.backend() == Backend::Sqlite {
        // SQLite's only lock is that of the file, and it has no statement timeout.
        return;
    }
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    let options = with(database.options().clone(), |database| {
        database.statement_timeout = Duration::from_secs(1);
    });
    let hurried = Store::connect(&options).await.unwrap();
    let lock = transaction::begin(&store).await.unwrap();
    assert_eq!(
        tokio::time::timeout(SOON, hurried.seal()).await.unwrap().unwrap(),
        Sealed::default()
    );
    as_the_version_before(&store, &endpoint).await;
    let sealing = hurried.seal();
    tokio::pin!(sealing);
    // Longer than its statements may normally take.
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut sealing).await.is_err());
    lock.rollback().await.unwrap();
    assert_eq!(
        tokio::time::timeout(SOON, sealing).await.unwrap().unwrap(),
        Sealed { endpoints: 1, ..Sealed::default() }
    );
}

pub async fn forgets_the_values_of_deleted_projects(database: &TestDatabase) {
    let (old, new) = (MasterKeys::generate_text("old"), MasterKeys::generate_text("new"));
    let store = with_keys(database, &old).await;
    store.migrate_up().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let (sealed, plain) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    as_the_version_before(&store, &plain).await;
    store.delete_project(&tenant.principal, tenant.project.id).await.unwrap();
    assert_eq!(stored(&store).await.iter().filter(|row| row.sealed.is_some()).count(), 1);
    // This needs no key, even if the key is lost.
    let store = with_keys(database, &format!("{new},old:lost")).await;
    assert_eq!(store.seal().await.unwrap(), Sealed { endpoints: 2, ..Sealed::default() });
    let rows = stored(&store).await;
    assert!(
        rows.iter().all(|row| row.sealed.is_none() && !shows_values(&columns(row))),
        "{rows:?}"
    );
    assert_eq!(store.seal().await.unwrap(), Sealed::default());
    // Deliveries to them find no endpoint.
    let directory = Directory::new(store.clone(), DirectoryOptions::default());
    for endpoint in [sealed, plain] {
        assert!(directory.endpoint(endpoint.id).await.unwrap().is_none());
    }
    store.migrate_down(steps_back(&store).await).await.unwrap();
}

pub async fn a_change_that_retention_removed_is_masked_already(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    tenant.endpoint(&store).await;
    let told = change::Entity::find().all(store.write()).await.unwrap();
    let mut row = told.into_iter().find(|change| change.kind == "endpoint").unwrap();
    row.after = row.after.map(|after| after.replace(&format!("?{MASK}"), "?key=query-value"));
    assert_eq!(mask_change(store.write(), row.clone()).await.unwrap(), 1);
    change::Entity::delete_by_id(row.seq).exec(store.write()).await.unwrap();
    assert_eq!(mask_change(store.write(), row).await.unwrap(), 0);
}
