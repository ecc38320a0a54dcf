//! Request headers that fill fields: HTTP conventions for which the message has a field.

use http::{HeaderMap, HeaderValue};
use outrider_model::Error;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use crate::json::field_path::{FieldPath, FieldPathError};

/// The header with which a client marks repetitions of a request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Header, gRPC path, field.
const TABLE: &[(&str, &str, &str)] = &[
    (IDEMPOTENCY_KEY, "/outrider.ingest.v1.IngestService/PublishEvent", "event.idempotency_key"),
    (IDEMPOTENCY_KEY, "/outrider.admin.v1.ApiKeyService/CreateApiKey", "request_id"),
    (IDEMPOTENCY_KEY, "/outrider.admin.v1.EndpointService/CreateEndpoint", "request_id"),
    (IDEMPOTENCY_KEY, "/outrider.admin.v1.EventTypeService/CreateEventType", "request_id"),
    (IDEMPOTENCY_KEY, "/outrider.admin.v1.ProjectService/CreateProject", "request_id"),
    (IDEMPOTENCY_KEY, "/outrider.admin.v1.SubscriptionService/CreateSubscription", "request_id"),
];

/// Refuses the header on a POST that would ignore it, because the client repeats the request and
/// relies on it.
pub(crate) fn check(
    fields: &[HeaderField],
    input: &MessageDescriptor,
    method: &http::Method,
    headers: &HeaderMap,
) -> Result<(), Error> {
    let is_taken = fields.iter().any(|field| field.header == IDEMPOTENCY_KEY);
    if *method != http::Method::POST || is_taken || !headers.contains_key(IDEMPOTENCY_KEY) {
        return Ok(());
    }
    let takes_events = input.get_field_by_name("events").is_some_and(|field| field.is_list());
    let advice = if takes_events { "; give each event an idempotency_key of its own" } else { "" };
    Err(Error::field(IDEMPOTENCY_KEY, format!("is not supported by this method{advice}")))
}

/// A header that fills a text field if the body does not.
#[derive(Debug)]
pub(crate) struct HeaderField {
    header: &'static str,
    field: FieldPath,
}

impl HeaderField {
    /// Returns the headers of a method.
    pub(crate) fn of(
        grpc_path: &str,
        input: &MessageDescriptor,
    ) -> Result<Vec<Self>, (&'static str, FieldPathError)> {
        let rows = TABLE.iter().filter(|(_, path, _)| *path == grpc_path);
        rows.map(|(header, _, name)| {
            Ok(Self { header, field: FieldPath::resolve(input, name).map_err(|why| (*name, why))? })
        })
        .collect()
    }

    /// Returns the name of the header.
    pub(crate) fn header(&self) -> &'static str {
        self.header
    }

    /// Returns the field that the header fills.
    pub(crate) fn field(&self) -> &FieldPath {
        &self.field
    }

    /// Fills the field. Fails if the body gives a different value.
    pub(crate) fn apply(
        &self,
        headers: &HeaderMap,
        message: &mut DynamicMessage,
    ) -> Result<(), Error> {
        let Some(text) = self.text(headers)? else { return Ok(()) };
        match self.field.get(message) {
            Some(Value::String(given)) if given == text => Ok(()),
            Some(_) => Err(Error::field(
                self.field.name(),
                format!("differs from the header {}", self.header),
            )),
            None => {
                let entry = self
                    .field
                    .entry(message)
                    .ok_or_else(|| Error::internal("a field path leads nowhere"))?;
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
            _ => Err(Error::field(self.header, "must be one header with visible ASCII text")),
        }
    }
}
