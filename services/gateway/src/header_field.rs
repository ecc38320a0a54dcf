//! Request headers that fill fields: conventions of HTTP that have a field in the message.

use http::{HeaderMap, HeaderValue};
use outrider_model::Error;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use crate::field_path::{FieldPath, Unresolved};

/// Header, gRPC path, field.
const TABLE: &[(&str, &str, &str)] =
    &[("idempotency-key", "/outrider.ingest.v1.IngestService/PublishEvent", "event.idempotency_key")];

/// A header that fills a text field when the body does not.
#[derive(Debug)]
pub(crate) struct HeaderField {
    header: &'static str,
    field: FieldPath,
}

impl HeaderField {
    /// The headers of a method.
    pub(crate) fn of(grpc_path: &str, input: &MessageDescriptor) -> Result<Vec<Self>, (&'static str, Unresolved)> {
        let rows = TABLE.iter().filter(|(_, path, _)| *path == grpc_path);
        rows.map(|(header, _, name)| Ok(Self { header, field: FieldPath::resolve(input, name).map_err(|why| (*name, why))? }))
            .collect()
    }

    /// The header's name.
    pub(crate) fn header(&self) -> &'static str {
        self.header
    }

    /// The field that it fills.
    pub(crate) fn field(&self) -> &FieldPath {
        &self.field
    }

    /// Fills the field; what the body says must not differ.
    pub(crate) fn apply(&self, headers: &HeaderMap, message: &mut DynamicMessage) -> Result<(), Error> {
        let Some(text) = self.text(headers)? else { return Ok(()) };
        match self.field.get(message) {
            Some(Value::String(given)) if given == text => Ok(()),
            Some(_) => Err(Error::field(self.field.name(), format!("differs from the header {}", self.header))),
            None => {
                let entry = self.field.entry(message).ok_or_else(|| Error::internal("a field path leads nowhere"))?;
                *entry = Value::String(text.to_owned());
                Ok(())
            }
        }
    }

    fn text<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h str>, Error> {
        let mut values = headers.get_all(self.header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let readable = |value: &'h HeaderValue| value.to_str().ok().filter(|text| !text.is_empty());
        match (readable(value), values.next()) {
            (Some(text), None) => Ok(Some(text)),
            _ => Err(Error::field(self.header, "must be one header of visible ASCII")),
        }
    }
}
