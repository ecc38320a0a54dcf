//! Reads the heads of responses before the HTTP library does.

mod filter;
mod reader;
mod regular;
mod rewrite;
mod syntax;

pub(crate) use filter::Heads;
