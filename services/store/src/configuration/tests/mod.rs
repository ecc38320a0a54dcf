//! Configuration, on both databases.

mod api_keys;
mod bootstrap;
mod changes;
mod directory;
mod endpoints;
mod event_types;
mod keys;
mod lists;
mod master_keys;
mod requests;
mod sealing;
mod tenants;

use crate::testing::backends::on_both;

on_both! {
    bootstrap::of_many_at_once_one_makes_everything;
    bootstrap::is_repeated_only_when_it_is_meant;
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
    master_keys::encrypts_everything_again_after_a_change_of_the_master_key;
    master_keys::tells_which_key_does_not_open_what_is_stored;
    master_keys::needs_no_key_where_nothing_is_to_be_encrypted;
    sealing::is_undone_when_the_schema_goes_back;
    sealing::looks_without_the_lock_and_waits_for_it_as_long_as_it_takes;
    master_keys::a_slow_look_at_the_keys_is_no_reason_not_to_start;
    sealing::forgets_the_values_of_deleted_projects;
    master_keys::goes_back_without_what_a_lost_key_encrypted;
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
