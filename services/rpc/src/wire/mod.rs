//! Errors, fields and bodies on the wire.

pub mod cause;
pub mod convert;
pub mod ending;
mod fit;
pub mod framing;
pub mod holding;
pub mod page;
pub mod pieces;
pub mod request_errors;
pub mod status;
pub mod validate;
