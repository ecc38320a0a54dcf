//! Changed, lost and wrong master keys.

use outrider_model::{EndpointState, Reason, endpoint::MASK};
use sea_orm::{
    ActiveValue::{Set, Unchanged},
    ConnectionTrait, EntityTrait, Statement, TransactionTrait,
};
use uuid::Uuid;

use super::sealing::{SOON, VALUES, as_the_version_before, steps_back, stored, with_keys};
use crate::{
    Backend, FailureKind, MasterKeys, Sealed, Store, StoreOptions,
    configuration::entity::{endpoint, endpoint_secret},
    testing::{TestDatabase, tenant::*},
};

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
    // The new key alone is not sufficient yet, and the message names the other.
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
    // While nothing is stored, any key is right.
    with_keys(database, &wrong).await.check_master_keys().await.unwrap();
    let tenant = tenant(&store, "a").await;
    let first = tenant.endpoint(&store).await;
    store.check_master_keys().await.unwrap();

    // Rows that are damaged almost completely do not hide others.
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

    let outsider = with_keys(database, &wrong).await;
    let failure = outsider.check_master_keys().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Key);
    assert!(
        failure.to_string().starts_with("secrets.master_key: key k is not the key of that id"),
        "{failure}"
    );
    assert!(failure.advice().unwrap().contains("had before"), "{failure}");
    // Nothing is encrypted with a wrong key.
    as_the_version_before(&store, &first).await;
    assert_eq!(outsider.seal().await.unwrap_err().kind, FailureKind::Key);
    assert!(stored(&store).await.iter().any(|row| row.id == first.id.0 && row.sealed.is_none()));

    // A key that is given as lost does not keep a process from starting.
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
    // Going back puts values in plain text, which needs the key.
    let failure = none.migrate_down(steps_back(&store).await).await.unwrap_err();
    assert!(failure.to_string().contains("there is no key"), "{failure}");
    assert!(store.current().await.is_ok(), "nothing was taken back");
}

pub async fn a_slow_look_at_the_keys_is_no_reason_not_to_start(database: &TestDatabase) {
    let store = database.store().await;
    if store.backend() == Backend::Sqlite {
        // Readers of SQLite wait for nobody.
        return;
    }
    let tenant = tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    as_the_version_before(&store, &endpoint).await;
    let outsider = with_keys(database, &MasterKeys::generate_text("other")).await;
    let lock = store.write().begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE endpoint_secrets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    tokio::time::timeout(SOON, outsider.check_master_keys()).await.unwrap().unwrap();
    lock.rollback().await.unwrap();
    assert_eq!(outsider.check_master_keys().await.unwrap_err().kind, FailureKind::Key);
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
        // Nothing must be sent without the lost values.
        let expected = if id == lost.id.0 {
            (EndpointState::Paused, MASK)
        } else {
            (EndpointState::Active, VALUES[0])
        };
        assert!(state == expected.0 && headers.contains(expected.1), "{headers}");
        assert!([lost.id.0, kept.id.0].contains(&id));
    }
}
