//! Validates the events of producers, field by field, and converts them for dispatch.

use std::time::Duration;

use outrider_model::{
    AdmittedEvent, Error, EventType, Idempotency, Origin, Principal, Project, Reason, Result,
    Timestamp, Trace, error::Violations, limits,
};
use outrider_proto::ingest::NewEvent;
use outrider_rpc::{convert, validate};
use outrider_telemetry::{TraceContext, catalog::ingest::PAYLOAD_BYTES};

use super::{fingerprint::fingerprint, json};
use crate::options::Options;

const DEFAULT_CONTENT_TYPE: &str = "application/json";

/// Who publishes into which project, and when.
pub struct Context<'a> {
    pub principal: &'a Principal,
    pub project: &'a Project,
    pub now: Timestamp,
    pub options: &'a Options,
    /// The trace context of the request.
    pub trace: Option<&'a TraceContext>,
}

/// Validates an event and converts it for dispatch. Violations have paths relative to the event.
pub fn event(mut event: NewEvent, context: &Context<'_>) -> Result<AdmittedEvent> {
    let key = Key::Given(std::mem::take(&mut event.idempotency_key));
    admit(event, key, context)
}

/// Like [`event`], for an event of a stream, with `key` as its idempotency key.
pub fn event_of_stream(new: NewEvent, key: String, context: &Context<'_>) -> Result<AdmittedEvent> {
    admit(new, Key::OfStream(key), context)
}

/// An idempotency key.
enum Key {
    /// The producer's; empty if there is none.
    Given(String),
    OfStream(String),
}

fn admit(event: NewEvent, key: Key, context: &Context<'_>) -> Result<AdmittedEvent> {
    if event.payload.len() > context.options.max_payload_bytes {
        return Err(too_large(
            "payload",
            event.payload.len(),
            context.options.max_payload_bytes,
            "ingest.max_payload_bytes",
        ));
    }
    let mut violations = Violations::new();
    violations.check("event_type", event.event_type.parse::<EventType>());
    let content_type = if event.content_type.is_empty() {
        DEFAULT_CONTENT_TYPE.to_owned()
    } else {
        event.content_type
    };
    check_payload(&mut violations, &content_type, &event.payload);
    if let Key::Given(key) = &key {
        check_key(&mut violations, "idempotency_key", key);
    }
    check_key(&mut violations, "ordering_key", &event.ordering_key);
    let deliver_at = check_deliver_at(&mut violations, event.deliver_at.as_ref(), context.now);
    let headers = validate::headers(&mut violations, "headers", &event.headers);
    validate::string_map(&mut violations, "metadata", &event.metadata);
    violations.finish()?;

    let mut admitted = AdmittedEvent {
        organization: context.project.fixed.organization,
        project: context.project.id,
        event_type: event.event_type,
        content_type,
        payload: event.payload,
        idempotency: None,
        headers,
        metadata: event.metadata.into_iter().collect(),
        ordering_key: Some(event.ordering_key).filter(|key| !key.is_empty()),
        deliver_at,
        origin: Origin::Api { actor: context.principal.actor.to_string() },
        trace: context.trace.map(|trace| Trace {
            parent: trace.traceparent(),
            state: trace.tracestate().to_owned(),
        }),
    };
    PAYLOAD_BYTES.inc_by(admitted.payload.len() as u64);
    let (Key::Given(key) | Key::OfStream(key)) = key;
    if !key.is_empty() {
        let fingerprint = fingerprint(&admitted, event.deliver_at.as_ref());
        admitted.idempotency = Some(Idempotency { key, fingerprint });
    }
    Ok(admitted)
}

/// Returns an error that names the field, the limit and its setting.
pub fn too_large(field: &str, bytes: usize, limit: usize, key: &str) -> Error {
    let error =
        Error::field(field, format!("has {bytes} bytes; at most {limit} are allowed ({key})"));
    Error { reason: Reason::TooLarge, ..error }
}

fn check_payload(violations: &mut Violations, content_type: &str, payload: &[u8]) {
    if let Err(why) = validate::content_type(content_type) {
        violations.add("content_type", why);
    } else if json::is_json(content_type) {
        // In REST, the payload is the field "data" or "data_base64".
        violations.check("payload", json::check(payload));
    }
}

fn check_key(violations: &mut Violations, field: &str, key: &str) {
    if !key.is_empty() {
        violations.check(field, validate::key(key, limits::KEY_BYTES));
    }
}

fn check_deliver_at(
    violations: &mut Violations,
    deliver_at: Option<&prost_types::Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    match convert::parse_timestamp("deliver_at", deliver_at?) {
        Err(_) => {
            violations.add("deliver_at", "must be a time between the years 1 and 9999");
            None
        }
        Ok(at) => {
            let latest = now.plus(Duration::from_secs(limits::DELIVER_AT_DAYS * 86_400));
            violations.require(
                at <= latest,
                "deliver_at",
                format!("must be at most {} days ahead", limits::DELIVER_AT_DAYS),
            );
            Some(at)
        }
    }
}
