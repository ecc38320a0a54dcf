//! The heads of answers, read before the HTTP library reads them.

mod filter;
mod reader;
mod regular;
mod rewrite;
mod syntax;

pub(crate) use filter::Heads;
