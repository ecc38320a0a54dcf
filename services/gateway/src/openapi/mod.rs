//! The OpenAPI 3.1 document: the routes, their messages and comments, and the one form of errors,
//! built from the descriptors.

mod comments;
mod document;
mod errors;
mod operation;
mod schema;

pub(crate) use document::document;
