//! The request that a job describes: its headers, and its signature at the moment of sending.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use http_body_util::Full;
use outrider_model::{Timestamp, signature};
use outrider_proto::internal::Job;
use outrider_telemetry::TraceContext;

use crate::{destination::Destination, job::Ids};

/// The body of a request.
pub(crate) type Body = Full<Bytes>;

/// The header with the number of the attempt; 1 for the first.
const ATTEMPT_HEADER: &str = "outrider-attempt";

/// Headers that events and endpoints cannot set: ours, and those that say how a message ends or a connection is used.
const OURS: [&str; 20] = [
    "host",
    "content-type",
    "content-length",
    "user-agent",
    "accept-encoding",
    signature::ID_HEADER,
    signature::TIMESTAMP_HEADER,
    signature::SIGNATURE_HEADER,
    signature::DELIVERY_ID_HEADER,
    ATTEMPT_HEADER,
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "traceparent",
    "tracestate",
];

/// Whether only the worker sets this header.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    OURS.contains(&name.as_str())
}

/// The request, signed by all secrets of the endpoint at `now`, with the headers of this trace. The payload is not copied.
pub(crate) fn build(
    destination: &Destination,
    job: &Job,
    ids: &Ids,
    payload: &Bytes,
    now: Timestamp,
    trace: Option<&TraceContext>,
) -> Request<Body> {
    let mut headers = destination.headers.clone();
    add_event_headers(&mut headers, job);
    let id = ids.event.to_string();
    let signatures = signature::sign(&destination.entry.secrets, &id, now, payload);
    let content_type = HeaderValue::from_str(&job.content_type)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(payload.len()));
    for (name, value) in [
        (signature::ID_HEADER, id),
        (signature::TIMESTAMP_HEADER, now.seconds().to_string()),
        (signature::SIGNATURE_HEADER, signatures),
        (signature::DELIVERY_ID_HEADER, ids.delivery.to_string()),
    ] {
        // Base32, base64 and digits are all visible ASCII.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers.insert(HeaderName::from_static(ATTEMPT_HEADER), HeaderValue::from(job.attempt));
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

/// The event's headers, where neither the worker nor the endpoint sets them.
fn add_event_headers(headers: &mut HeaderMap, job: &Job) {
    for (name, value) in &job.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) if !is_ours(&name) => {
                headers.entry(name).or_insert(value);
            }
            // Validation should have refused it.
            _ => tracing::debug!(header = name, "a header of the event is not sent"),
        }
    }
}
