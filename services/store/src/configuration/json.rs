//! JSON in columns.

use outrider_model::{Error, Result};

use crate::connection::error::malformed_row;

/// Parses the JSON text of a stored column.
pub(super) fn parse_json<T: serde::de::DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    text: &str,
) -> Result<T> {
    serde_json::from_str(text).map_err(|_| malformed_row(table, column))
}

/// The JSON text of a value, for a column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|_| Error::internal("a value is not JSON"))
}
