//! Settings: what operators may set is written once, next to the code that reads it.
//!
//! A role declares its options with [`section!`]: each field with its documentation, its default
//! and its limit. The struct is the section of the configuration of the same name. The binary
//! aggregates the sections and generates the reference from [`Section::FIELDS`].
//!
//! This crate must never read a file or a variable, and knows no section.

mod hidden;
mod invalid;
mod limit;
mod port;
mod section;
mod setting;
mod span;

#[doc(hidden)]
pub mod field;

pub use hidden::Hidden;
pub use invalid::{Invalid, together};
pub use limit::{Bound, Limit, OneOf, Positive, because, listen_address, or_empty, or_zero};
pub use port::Port;
pub use section::{Field, Section};
#[doc(hidden)]
pub use section::{check, words};
#[doc(hidden)]
pub use serde;
pub use setting::{Kind, Parsed, Setting};
pub use span::{Span, days, hours, millis, minutes, seconds};

/// Bytes in a KiB.
pub const KIB: usize = 1024;
/// Bytes in a MiB.
pub const MIB: usize = 1024 * KIB;

#[cfg(test)]
extern crate self as outrider_settings;
#[cfg(test)]
mod tests;
