//! The services of the admin role as clients see them: through the guard, over SQLite in a file.
// The lint knows tests, but not their shared functions.
#![allow(clippy::unwrap_used)]

mod api_keys;
mod endpoints;
mod event_types;
mod harness;
mod organizations;
mod projects;
mod subscriptions;
