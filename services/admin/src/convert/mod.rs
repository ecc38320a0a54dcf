//! Conversions between wire types and the model, for each noun: from requests, with every field
//! checked and paths as in the request, and to answers.

pub mod api_key;
pub mod endpoint;
pub mod event_type;
pub mod organization;
pub mod project;
pub mod subscription;
