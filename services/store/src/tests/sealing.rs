use std::{fs, time::Duration};

use outrider_model::{
    Endpoint, EndpointState, Principal, Reason, Scope, Target,
    endpoint::{MASK, has_masked_query},
};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ConnectionTrait, EntityTrait, IntoActiveModel, Statement, TransactionTrait,
};
use uuid::Uuid;

use super::support::*;
use crate::{
    Backend, Directory, DirectoryOptions, EndpointChange, FailureKind, MasterKeys, NewEndpoint,
    Sealed, Store, StoreOptions,
    endpoints::rows,
    entity::{change, endpoint, endpoint_secret},
    sealing::mask_change,
    testing::{TestDatabase, with},
    transaction,
};

const VALUES: [&str; 2] = ["header value", "query-value"];

async fn stored(store: &Store) -> Vec<endpoint::Model> {
    endpoint::Entity::find().all(store.write()).await.unwrap()
}

/// All that a row has, its bytes as text.
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
    let Target::Http { url } = &endpoint.target;
    assert!(has_masked_query(url) && url.starts_with("https://example.com/hook?"), "{url}");
    assert_eq!(endpoint.headers.get("x-tenant").map(String::as_str), Some(MASK));
}

async fn with_keys(database: &TestDatabase, keys: &str) -> Store {
    let options = StoreOptions {
        master_keys: MasterKeys::parse(keys).unwrap(),
        ..database.options().clone()
    };
    Store::connect(&options).await.unwrap()
}

/// Rewrites a row as the version before wrote it.
async fn as_the_version_before(store: &Store, endpoint: &Endpoint) {
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
        // The version before this one fails on the kind, and so sends nothing without its
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

    // What was moved from another row does not open, and lists do not open it.
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

    // Values go when they are replaced, and with their endpoint, which opening nothing can delete.
    let bare = EndpointChange {
        target: Some(Target::Http { url: "https://example.com/".to_owned() }),
        headers: Some([].into()),
        ..EndpointChange::default()
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
    let plain = NewEndpoint {
        headers: [].into(),
        target: Target::Http { url: "https://b.example/".to_owned() },
        ..new_endpoint()
    };
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

    // It reads as before, and masked all the same.
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

    // Nor does the file of SQLite hold what it held, once it is vacuumed.
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
    let pause = EndpointChange { state: Some(EndpointState::Paused), ..EndpointChange::default() };
    let changes = async {
        for endpoint in &endpoints {
            other.update_endpoint(who, project, endpoint.id, pause.clone()).await.unwrap();
        }
    };
    let (one, two, ()) = tokio::join!(store.seal(), other.seal(), changes);
    assert_eq!((one.unwrap().unreadable, two.unwrap().unreadable), (0, 0));
    assert!(
        stored(&store).await.iter().all(|row| row.sealed.is_some() && !shows_values(&columns(row)))
    );
    for endpoint in endpoints {
        let kept = store.get_endpoint(who, project, endpoint.id).await.unwrap();
        let expected =
            Endpoint { state: EndpointState::Paused, updated_at: kept.updated_at, ..endpoint };
        assert_eq!(kept, expected);
    }
}

pub async fn encrypts_everything_again_after_a_change_of_the_master_key(database: &TestDatabase) {
    let (old, new) = (MasterKeys::generate_text("old"), MasterKeys::generate_text("new"));
    let before = with_keys(database, &old).await;
    before.migrate_up().await.unwrap();
    let tenant = tenant(&before, "a").await;
    let (who, project) = (&tenant.principal, tenant.project.id);
    let (endpoint, damaged) = (tenant.endpoint(&before).await, tenant.endpoint(&before).await);
    let row = endpoint::ActiveModel {
        id: Unchanged(damaged.id.0),
        sealed: Set(Some(vec![1, 3])),
        ..Default::default()
    };
    endpoint::Entity::update(row).exec(before.write()).await.unwrap();

    let both = with_keys(database, &format!("{new},{old}")).await;
    both.check_master_keys().await.unwrap();
    let added = tenant.endpoint(&both).await;
    // The new key alone is not enough yet, and the message names the other.
    let failure = with_keys(database, &new).await.check_master_keys().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Key);
    assert!(failure.to_string().contains("key old, which is not given"), "{failure}");
    assert!(failure.advice().unwrap().contains("old:BASE64"), "{failure}");

    assert_eq!(
        both.seal().await.unwrap(),
        Sealed { endpoints: 1, secrets: 2, changes: 0, unreadable: 1 }
    );
    let mark = MasterKeys::parse(&new).unwrap().current_mark();
    let rows = endpoint_secret::Entity::find().all(both.write()).await.unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.ciphertext.starts_with(&mark)));
    let after = with_keys(database, &new).await;
    after.check_master_keys().await.unwrap();
    for kept in [&endpoint, &added] {
        assert_eq!(&after.get_endpoint(who, project, kept.id).await.unwrap(), kept);
        assert_eq!(after.endpoint_secret(who, project, kept.id).await.unwrap().expose(), SECRET);
    }
    let failure = before.check_master_keys().await.unwrap_err();
    assert!(failure.to_string().contains("key new, which is not given"), "{failure}");
}

pub async fn tells_which_key_does_not_open_what_is_stored(database: &TestDatabase) {
    let (right, wrong) = (MasterKeys::generate_text("k"), MasterKeys::generate_text("k"));
    let store = with_keys(database, &right).await;
    store.migrate_up().await.unwrap();
    // Of nothing stored, any key is the right one.
    with_keys(database, &wrong).await.check_master_keys().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let first = tenant.endpoint(&store).await;
    store.check_master_keys().await.unwrap();

    // Rows of which next to nothing is left hide no others.
    for left in [vec![], vec![1], vec![1, 200]] {
        let damaged = tenant.endpoint(&store).await;
        let row = endpoint::ActiveModel {
            id: Unchanged(damaged.id.0),
            sealed: Set(Some(left)),
            ..Default::default()
        };
        endpoint::Entity::update(row).exec(store.write()).await.unwrap();
    }
    store.check_master_keys().await.unwrap();
    let without = with_keys(database, &MasterKeys::generate_text("other")).await;
    let failure = without.check_master_keys().await.unwrap_err();
    assert!(failure.to_string().contains("key k, which is not given"), "{failure}");

    let stranger = with_keys(database, &wrong).await;
    let failure = stranger.check_master_keys().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Key);
    assert!(
        failure.to_string().starts_with("secrets.master_key: key k is not the key of that id"),
        "{failure}"
    );
    assert!(failure.advice().unwrap().contains("had before"), "{failure}");
    // Nothing is encrypted with a wrong key.
    as_the_version_before(&store, &first).await;
    assert_eq!(stranger.seal().await.unwrap_err().kind, FailureKind::Key);
    assert!(stored(&store).await.iter().any(|row| row.id == first.id.0 && row.sealed.is_none()));

    // A lost key is named, and stands in nobody's way.
    let other = MasterKeys::generate_text("other");
    let without = with_keys(database, &format!("{other},k:lost")).await;
    without.check_master_keys().await.unwrap();
    let (who, project) = (&tenant.principal, tenant.project.id);
    assert_reason(without.endpoint_secret(who, project, first.id).await, Reason::Internal);

    // One damaged row says nothing about its key.
    let last = tenant.endpoint(&store).await;
    let rows = endpoint_secret::Entity::find().all(store.write()).await.unwrap();
    let row = rows.into_iter().find(|row| row.endpoint_id == last.id.0).unwrap();
    let mut ciphertext = row.ciphertext.clone();
    *ciphertext.last_mut().unwrap() ^= 1;
    let row = endpoint_secret::ActiveModel {
        id: Unchanged(row.id),
        ciphertext: Set(ciphertext),
        ..Default::default()
    };
    endpoint_secret::Entity::update(row).exec(store.write()).await.unwrap();
    store.check_master_keys().await.unwrap();
}

pub async fn needs_no_key_where_nothing_is_to_be_encrypted(database: &TestDatabase) {
    let keyless = || async {
        Store::connect(&StoreOptions {
            master_keys: MasterKeys::none(),
            ..database.options().clone()
        })
        .await
        .unwrap()
    };
    let none = keyless().await;
    none.migrate_up().await.unwrap();
    assert_eq!(none.seal().await.unwrap(), Sealed::default());
    let store = database.connect().await;
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    assert_eq!(none.seal().await.unwrap(), Sealed::default());
    assert_eq!(none.check_master_keys().await.unwrap_err().kind, FailureKind::Key);
    assert_reason(
        none.create_endpoint(&tenant.principal, tenant.project.id, new_endpoint(), None).await,
        Reason::Internal,
    );
    as_the_version_before(&store, &endpoint).await;
    let failure = none.seal().await.unwrap_err();
    assert!(
        failure.kind == FailureKind::Key && failure.to_string().contains("there is no key"),
        "{failure}"
    );
    store.seal().await.unwrap();
    // Going back puts values in the clear, which takes the key.
    let failure = none.migrate_down(steps_back(&store).await).await.unwrap_err();
    assert!(failure.to_string().contains("there is no key"), "{failure}");
    assert!(store.current().await.is_ok(), "nothing was taken back");
}

/// How many steps lead to a schema in which values are in the clear.
async fn steps_back(store: &Store) -> u32 {
    let steps = store.migration_status().await.unwrap();
    u32::try_from(steps.iter().filter(|step| step.name.as_str() > "m0008_dropping").count())
        .unwrap()
}

pub async fn is_undone_when_the_schema_goes_back(database: &TestDatabase) {
    let store = database.store().await;
    let tenant = tenant(&store, "a").await;
    let (endpoint, gone) = (tenant.endpoint(&store).await, tenant.endpoint(&store).await);
    store.delete_endpoint(&tenant.principal, tenant.project.id, gone.id).await.unwrap();
    store.migrate_down(steps_back(&store).await).await.unwrap();
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

/// How long something may take that waits for nothing.
const SOON: Duration = Duration::from_secs(20);

pub async fn looks_without_the_lock_and_waits_for_it_as_long_as_it_takes(database: &TestDatabase) {
    let store = database.store().await;
    if store.backend() == Backend::Sqlite {
        // Its only lock is the file's, and it has no timeout of statements.
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
    // Longer than its statements may take elsewhere.
    assert!(tokio::time::timeout(Duration::from_secs(3), &mut sealing).await.is_err());
    lock.rollback().await.unwrap();
    assert_eq!(
        tokio::time::timeout(SOON, sealing).await.unwrap().unwrap(),
        Sealed { endpoints: 1, ..Sealed::default() }
    );
}

pub async fn a_slow_look_at_the_keys_is_no_reason_not_to_start(database: &TestDatabase) {
    let store = database.store().await;
    if store.backend() == Backend::Sqlite {
        // Its readers wait for nobody.
        return;
    }
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    as_the_version_before(&store, &endpoint).await;
    let stranger = with_keys(database, &MasterKeys::generate_text("other")).await;
    let lock = store.write().begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE endpoint_secrets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    tokio::time::timeout(SOON, stranger.check_master_keys()).await.unwrap().unwrap();
    lock.rollback().await.unwrap();
    assert_eq!(stranger.check_master_keys().await.unwrap_err().kind, FailureKind::Key);
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
    // No key is needed for it, be it lost.
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

pub async fn goes_back_without_what_a_lost_key_encrypted(database: &TestDatabase) {
    let (old, new) = (MasterKeys::generate_text("old"), MasterKeys::generate_text("new"));
    let store = with_keys(database, &old).await;
    store.migrate_up().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let lost = tenant.endpoint(&store).await;
    let store = with_keys(database, &format!("{new},old:lost")).await;
    let kept = tenant.endpoint(&store).await;
    store.migrate_down(steps_back(&store).await).await.unwrap();
    let read = "SELECT id, state, headers FROM endpoints WHERE target_kind = 'http'";
    let rows = store
        .write()
        .query_all_raw(Statement::from_string(store.backend().into(), read))
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let (id, headers) =
            (row.try_get_by_index::<Uuid>(0).unwrap(), row.try_get_by_index::<String>(2).unwrap());
        let state = EndpointState::from_number(row.try_get_by_index(1).unwrap()).unwrap();
        // Nothing is sent without the values that there were.
        let expected = if id == lost.id.0 {
            (EndpointState::Paused, MASK)
        } else {
            (EndpointState::Active, VALUES[0])
        };
        assert!(state == expected.0 && headers.contains(expected.1), "{headers}");
        assert!([lost.id.0, kept.id.0].contains(&id));
    }
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
