//! What the configuration half promises, on both databases.

mod api_keys;
mod bootstrap;
mod changes;
mod directory;
mod durability;
mod endpoints;
mod event_types;
mod failures;
mod hosts;
mod keys;
mod lists;
mod owner;
mod poolers;
mod questions;
mod requests;
mod schema;
mod sealing;
mod sessions;
pub(crate) mod support;
mod tenants;

use crate::testing::TestDatabase;

macro_rules! on_both {
    ($($module:ident :: $name:ident;)*) => {
        mod postgres {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                if let Some(database) = super::TestDatabase::postgres().await {
                    super::$module::$name(&database).await;
                }
            }
        )*}

        mod sqlite {$(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$module::$name(&super::TestDatabase::sqlite()).await;
            }
        )*}
    };
}

on_both! {
    bootstrap::of_many_at_once_one_makes_everything;
    bootstrap::is_repeated_only_when_it_is_meant;
    durability::a_commit_is_on_disk;
    schema::goes_up_and_down_and_tells_where_it_is;
    schema::is_migrated_once_by_many_at_once;
    schema::the_clock_goes_with_the_database;
    schema::a_write_that_is_given_up_leaves_nothing_behind;
    tenants::what_is_foreign_is_not_found;
    tenants::what_is_deleted_is_not_found;
    tenants::a_bound_key_reaches_its_project_only;
    tenants::a_key_of_an_owner_reaches_its_endpoints_only;
    endpoints::are_kept_as_they_were_given;
    endpoints::change_only_what_is_given;
    endpoints::secrets_open_only_with_their_key_and_row;
    endpoints::given_ids_are_kept_and_refused_when_taken;
    sealing::encrypts_values_in_their_rows_and_shows_them_to_few;
    sealing::takes_up_what_the_version_before_wrote;
    sealing::goes_on_while_endpoints_change;
    sealing::encrypts_everything_again_after_a_change_of_the_master_key;
    sealing::tells_which_key_does_not_open_what_is_stored;
    sealing::needs_no_key_where_nothing_is_to_be_encrypted;
    sealing::is_undone_when_the_schema_goes_back;
    sealing::looks_without_the_lock_and_waits_for_it_as_long_as_it_takes;
    sealing::a_slow_look_at_the_keys_is_no_reason_not_to_start;
    sealing::forgets_the_values_of_deleted_projects;
    sealing::goes_back_without_what_a_lost_key_encrypted;
    sealing::a_change_that_retention_removed_is_masked_already;
    event_types::are_kept_changed_and_deleted;
    event_types::have_one_entry_for_a_name_and_a_request;
    event_types::are_listed_without_their_schemas;
    event_types::of_others_do_not_exist;
    event_types::are_bounded_in_number;
    event_types::and_their_mode_are_followed_by_the_directory;
    api_keys::give_no_more_than_they_have;
    lists::walk_forth_and_back;
    requests::repeated_answer_the_same_and_others_conflict;
    requests::many_at_once_create_one;
    requests::are_forgotten_after_a_day;
    changes::tell_who_did_what_in_order_without_secrets;
    changes::of_many_writers_leave_no_gap;
    questions::changes_of_configuration_go_in_turns;
    questions::projects_that_do_not_exist_are_asked_for_in_turns;
    directory::knows_keys_until_they_are_revoked_or_expire;
    directory::remembers_keys_that_do_not_exist_within_a_bound;
    keys::that_are_invented_are_not_in_the_way_of_those_that_exist;
    keys::of_another_process_are_good_at_once;
    keys::are_known_by_their_ids_as_they_come_and_go;
    directory::follows_every_change;
    directory::is_fresh_within_a_second_of_another_process;
    directory::is_never_stale_after_a_refresh;
    directory::follows_a_flood_of_announcements_at_a_pace;
    directory::drops_everything_when_the_feed_was_replaced;
    directory::forgets_the_endpoints_of_deleted_projects;
    directory::knows_endpoints_that_cannot_be_decrypted;
    directory::trusts_no_longer_than_it_may;
}

/// What is in memory lives in one connection: nothing may need two at once.
#[tokio::test(flavor = "multi_thread")]
async fn in_memory_sqlite_serves_reads_and_writes() {
    let options = crate::testing::with(crate::testing::options("sqlite::memory:"), |database| {
        database.acquire_timeout = std::time::Duration::from_secs(2);
    });
    let store = crate::Store::connect(&options).await.unwrap();
    store.migrate_up().await.unwrap();
    store.ready().await.unwrap();
    let tenant = support::tenant(&store, "a").await;
    let endpoint = tenant.endpoint(&store).await;
    tenant.subscription(&store, &endpoint, "*").await;
    let directory = crate::Directory::new(store.clone(), crate::DirectoryOptions::default());
    assert_eq!(directory.router(tenant.project.id).await.unwrap().route("a").len(), 1);
    assert!(directory.endpoint(endpoint.id).await.unwrap().is_some());
    let hooks = (0..20).map(|_| tenant.endpoint(&store));
    assert_eq!(futures::future::join_all(hooks).await.len(), 20);
}

#[tokio::test]
async fn other_urls_and_unreachable_databases_are_errors_that_hide_the_url() {
    for url in [
        "",
        "mysql://x",
        "postgres://u:hunter2@127.0.0.1:1/x",
        "postgres://[",
        "host=h pasword=hunter2",
        "sqlite:///nowhere/at/all.db",
    ] {
        let error = crate::Store::connect(&crate::testing::options(url)).await.err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(
        !format!("{:?}", crate::testing::options("postgres://u:hunter2@h/x")).contains("hunter2")
    );
}
