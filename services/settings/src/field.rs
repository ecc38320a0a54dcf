//! How serde reads and writes a field of a section: by its [`Setting`]. Named by [`section!`] only.
//!
//! [`section!`]: crate::section

use serde::{Deserializer, Serializer};

use crate::Setting;

/// Writes a field.
pub fn serialize<T: Setting, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// Reads a field.
pub fn deserialize<'de, T: Setting, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}
