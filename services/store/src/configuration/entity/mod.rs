//! The rows of the configuration tables.

pub mod api_key;
pub mod change;
pub mod endpoint;
pub mod endpoint_secret;
pub mod event_type;
pub mod organization;
pub mod project;
pub mod request;
pub mod subscription;
