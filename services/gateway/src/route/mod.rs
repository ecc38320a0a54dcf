//! Finds the method that a request calls: the routes of REST, and the methods of gRPC.

pub(crate) mod header_field;
pub(crate) mod lines_rule;
mod methods;
mod percent;
pub(crate) mod query;
mod routes;
pub(crate) mod stream_rule;
mod template;
mod trie;

pub(crate) use lines_rule::LinesRule;
pub(crate) use methods::{Method, Methods};
pub use routes::RouteError;
pub(crate) use routes::{BodyRule, Found, Route, Routes};
pub(crate) use stream_rule::StreamRule;
