//! What a caller may do: authentication, scopes, and bounds of messages and connections.

pub mod auth;
pub mod bounds;
pub mod internal;
pub mod methods;
pub mod policy;
pub mod slots;
