//! The request that a job describes: its headers, and its signature at the moment of sending.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use http_body_util::Full;
use outrider_model::{Job, JobEvent, Timestamp, header as rule, signature};
use outrider_telemetry::TraceContext;

use super::{connections::Body, destination::Destination};

/// The request, signed by all secrets of the endpoint at `now`, with the headers of this trace. The
/// payload is not copied.
pub(crate) fn build(
    destination: &Destination,
    job: &Job,
    payload: &Bytes,
    now: Timestamp,
    trace: Option<&TraceContext>,
) -> Request<Body> {
    let mut headers = destination.headers.clone();
    let event = &*job.event;
    add_event_headers(&mut headers, event);
    headers.entry(header::USER_AGENT).or_insert_with(|| destination.user_agent.clone());
    let id = event.id.to_string();
    let signatures = signature::sign(&destination.entry.secrets, &id, now, payload);
    let content_type = HeaderValue::from_str(&event.content_type)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(payload.len()));
    for (name, value) in [
        (signature::ID_HEADER, id),
        (signature::TIMESTAMP_HEADER, now.seconds().to_string()),
        (signature::SIGNATURE_HEADER, signatures),
        (signature::DELIVERY_ID_HEADER, job.delivery.to_string()),
        (rule::EVENT_TYPE, event.event_type.clone()),
    ] {
        // Base32, base64, digits and event types are all visible ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers.insert(HeaderName::from_static(rule::ATTEMPT), HeaderValue::from(job.attempt));
    // Visible ASCII, by the rule for keys.
    let ordering_key = event.ordering_key.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(key)) = ordering_key {
        headers.insert(HeaderName::from_static(rule::ORDERING_KEY), key);
    }
    if trace.is_some() {
        TraceContext::settle(&mut headers, trace);
    }

    let mut request = Request::new(Full::new(payload.clone()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = destination.uri.clone();
    *request.headers_mut() = headers;
    request
}

/// The event's headers, where neither Outrider nor the endpoint sets them.
fn add_event_headers(headers: &mut HeaderMap, event: &JobEvent) {
    for (name, value) in &event.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) if rule::reserved(name.as_str()).is_none() => {
                headers.entry(name).or_insert(value);
            }
            // Validation should have refused it.
            _ => tracing::debug!(header = name, "a header of the event is not sent"),
        }
    }
}
