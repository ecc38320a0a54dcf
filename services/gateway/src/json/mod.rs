//! Messages in JSON, by the mapping of proto3 with the decisions that the documentation of the
//! crate lists.

pub(crate) mod behavior;
mod event;
pub(crate) mod field_path;
pub(crate) mod mask;
pub(crate) mod payload;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod scalar;
pub(crate) mod secret;
pub(crate) mod write;

pub use event::read_event;
