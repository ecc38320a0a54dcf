//! Metrics, traces and logs: the catalog of all metrics, the W3C trace context, spans that cost
//! nothing if they are not sampled, and the start of telemetry in a process.
//!
//! It must never contain a payload, a secret, or a label that grows with the number of tenants. Of
//! our crates, it depends on `settings` only, so that every other crate may use it.

pub mod catalog;
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
