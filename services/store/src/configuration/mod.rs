//! Configuration: organizations, projects, API keys, endpoints, subscriptions and event types; the
//! feed of their changes; and the directory, the cache that follows the feed.

pub(crate) mod api_keys;
pub(crate) mod bootstrap;
pub(crate) mod changes;
pub(crate) mod directory;
mod endpoint_rows;
mod endpoint_secrets;
pub(crate) mod endpoints;
pub(crate) mod entity;
pub(crate) mod event_types;
mod json;
mod lists;
mod master_key_check;
mod migrate_down;
mod organizations;
pub(crate) mod projects;
mod reach;
mod requests;
mod resource;
pub(crate) mod sealing;
mod settings;
pub(crate) mod subscriptions;
#[cfg(test)]
mod tests;
mod transaction;
