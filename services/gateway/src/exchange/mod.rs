//! A request and its answer, for all protocols: bodies, deadlines, errors, and the data that all
//! requests share.

pub(crate) mod answer;
mod backend;
pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod client_stream;
pub(crate) mod compress;
pub(crate) mod cost;
pub(crate) mod deadline;
pub(crate) mod ending;
pub(crate) mod fault;
pub(crate) mod meter;
pub(crate) mod observe;
mod shared;
pub(crate) mod unsent;

pub use backend::{Backends, remote_backend};
pub(crate) use shared::{MAX_STREAMS_WITHOUT_KEY, Shared, show_buffered};
