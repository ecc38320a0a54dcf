//! Bounds the number of entries in the lists and maps of a public request, by the option
//! `max_items` of their fields.
//!
//! The REST transcoder enforces the option while it reads JSON. [`Bounded`] enforces it on protobuf
//! bytes before they are decoded, because an empty message in a list takes two bytes on the wire
//! and hundreds in memory.

mod body;
mod items;
mod layout;
mod scan;
#[cfg(test)]
mod tests;

pub use body::{Bounded, Weight};
pub use items::{declared_max_items, max_items, too_many};
