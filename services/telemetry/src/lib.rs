//! What operators see of Outrider: metrics, traces and logs. The catalogue of all metrics, the W3C
//! trace context, spans that cost nothing where they are not wanted, and the start of it all in a
//! process.
//!
//! It must never hold a payload, a secret, or a label that grows with the number of tenants; and it
//! depends on `settings` only of our crates, so that every other crate may use it.

pub mod catalogue;
mod collector_headers;
pub mod metrics;

mod context;
mod essential;
mod export;
mod filter;
mod hop;
mod options;
mod process;
mod seldom;
mod start;

pub use context::TraceContext;
pub use essential::{caught, essential};
pub use hop::{Hop, Kind, current, is_exporting};
pub use options::{ExportOptions, LogOptions};
pub use process::expose_process;
pub use seldom::Seldom;
pub use start::{StartError, Telemetry, tell_warnings};
