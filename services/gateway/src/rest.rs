//! One REST request: to a message, to the role, and back.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;
use outrider_model::{Error, FieldViolation, Principal, Reason};
use outrider_shares::Holder;
use outrider_telemetry::TraceContext;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tonic::body::Body;

use crate::{
    Shared,
    answer::Refusal,
    body::{self, Whole},
    call, compress,
    cost::{Cost, Held},
    deadline::Deadline,
    ending,
    fault::fault,
    header_field, mask, ndjson, payload, query, range, read, request_id,
    route::{BodyRule, Found, Route},
    scalar, stream, unsent, write,
};

/// Answers a request whose route is found.
pub(crate) async fn answer(
    shared: &Shared,
    found: &Found<'_, '_>,
    parts: &Parts,
    body: Incoming,
    deadline: &Deadline,
) -> Result<Response<Body>, Refusal> {
    let (route, end) = (found.route, deadline.asked_end());
    check_encoding(&parts.headers)?;
    header_field::check(route, &parts.method, &parts.headers).map_err(Refusal::closing)?;
    if let Some(rule) = ndjson::asked(route, &parts.headers) {
        let base = message(found, parts, Given::default()).map_err(Refusal::closing)?;
        // Boxed: it would make the future of every request as large.
        return Box::pin(ndjson::answer(shared, route, rule, base, parts, body, end)).await;
    }
    if route.stream.is_some() {
        stream::check_accept(&parts.headers)?;
    }
    let Whole { bytes, mut room } = body::whole(shared, parts, body, deadline).await?;
    let (given, decoded) = read_body(shared, route, parts, bytes).await?;
    let request = call::frame(&message(found, parts, given)?)?;
    // The body and what was decoded of it are gone. Room is held for the message until there is an
    // answer.
    drop(decoded);
    room.shrink(room.amount().saturating_sub(request.len()));
    let backend =
        shared.backend(&route.package).ok_or_else(|| Error::internal("the method has no role"))?;
    let (limit, holder) = (shared.given.max_answer_bytes, Holder::of_request(&parts.extensions));
    if let Some(rule) = &route.stream {
        let caller = parts.extensions.get::<Principal>().cloned();
        let answer =
            call::open(backend, &route.grpc_path, metadata(&parts.headers), request, caller).await;
        let answer = answer.map_err(|error| in_words_of_rest(route, error))?;
        let body = ending::bounded(shared, answer, end).into_body();
        let id = parts
            .headers
            .get(request_id::HEADER)
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_static(""));
        let events = stream::Events::new(rule, body, limit, shared.unsent.clone(), holder);
        let answer =
            stream::answer(events, id).await.map_err(|error| in_words_of_rest(route, error))?;
        return Ok(unsent::stream(shared, holder, answer));
    }
    let answer =
        call::unary(backend, &route.grpc_path, metadata(&parts.headers), request, limit).await;
    let answer = answer.map_err(|error| in_words_of_rest(route, error))?;
    let answer = DynamicMessage::decode(route.output.clone(), answer)
        .map_err(fault("the answer does not decode"))?;
    let text = match &route.response_body {
        Some(field) => write::field(&answer, field)?,
        None => write::message(&answer)?,
    };
    Ok(unsent::whole(shared, holder, compress::json(text, &parts.headers).await)?)
}

/// A role names fields as the proto does; where REST has another name, the client is told that one.
fn in_words_of_rest(route: &Route, mut error: Error) -> Error {
    for violation in &mut error.violations {
        if let Some(renamed) = payload::rename(&route.input, &violation.field) {
            error.message = error
                .message
                .replace(&format!("{}:", violation.field), &format!("{renamed}:"))
                .into();
            violation.field = renamed;
        }
    }
    error
}

/// Without the body, which HEAD must not have, but with its length.
pub(crate) fn without_body(answer: Response<Body>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// What the role needs of the client's headers.
pub(crate) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for name in [AUTHORIZATION, request_id::HEADER].into_iter().chain(TraceContext::HEADERS) {
        for value in headers.get_all(&name) {
            metadata.append(name.clone(), value.clone());
        }
    }
    metadata
}

/// What a body gives: its value, and the names of the fields in it. A missing body is an empty one:
/// whether a field is required is the role's to say.
#[derive(Default)]
pub(crate) struct Given {
    value: Option<Value>,
    present: Vec<String>,
}

pub(crate) fn message(
    found: &Found<'_, '_>,
    parts: &Parts,
    given: Given,
) -> Result<DynamicMessage, Error> {
    transcoded(found, parts, given).map_err(|error| range::named(&found.route.input, error))
}

fn transcoded(found: &Found<'_, '_>, parts: &Parts, given: Given) -> Result<DynamicMessage, Error> {
    let route = found.route;
    let mut message = DynamicMessage::new(route.input.clone());
    match (&route.body, given.value) {
        (BodyRule::Field(field), Some(value)) => message.set_field(field, value),
        (_, Some(Value::Message(given))) => message = given,
        _ => {}
    }
    apply_path(found, &mut message)?;
    query::apply(route, parts.uri.query().unwrap_or_default(), &mut message)?;
    for header in &route.headers {
        header.apply(&parts.headers, &mut message)?;
    }
    if let Some(rule) = &route.stream {
        rule.resume(&parts.headers, &mut message)?;
    }
    if let Some(mask) = &route.mask {
        mask::derive(mask, given.present, &mut message);
    }
    Ok(message)
}

/// Reads a body, and holds room for what it becomes.
async fn read_body(
    shared: &Shared,
    route: &Route,
    parts: &Parts,
    body: Bytes,
) -> Result<(Given, Option<Held>), Error> {
    if body.is_empty() {
        return Ok((Given::default(), None));
    }
    if matches!(route.body, BodyRule::None) {
        return Err(Error::new(Reason::MalformedRequest, "the request must have no body"));
    }
    check_media_type(&parts.headers)?;
    let holder = Holder::of_request(&parts.extensions);
    let (rule, input) = (route.body.clone(), route.input.clone());
    let decoded = shared
        .decoding
        .body(holder, body.len(), move |cost| given(&rule, &input, &body, cost))
        .await;
    decoded.map(|(given, held)| (given, Some(held)))
}

/// Reads a body as its rule says.
pub(crate) fn given(
    rule: &BodyRule,
    input: &MessageDescriptor,
    body: &Bytes,
    cost: &Cost,
) -> Result<Given, Error> {
    let read = match rule {
        BodyRule::Field(field) => {
            let mut read = read::field(body, field, cost)?;
            mask::keep_settable(field, &mut read.present);
            read
        }
        BodyRule::None | BodyRule::Whole => read::message(body, input, cost)?,
    };
    Ok(Given { value: read.value, present: read.present })
}

/// A compressed body would have to be unpacked to be bounded: it is refused before it is read.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let plain =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let violation = FieldViolation {
        field: "content-encoding".into(),
        description: "must be absent: bodies are taken as they are".into(),
    };
    Err(Refusal::closing(Error {
        reason: Reason::MalformedRequest,
        ..Error::fields(vec![violation])
    }))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Error> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(Error::new(
            Reason::MalformedRequest,
            "the body must be JSON with \"Content-Type: application/json\"",
        ));
    }
    let charsets = parts
        .filter_map(|part| part.split_once('='))
        .filter(|(name, _)| name.eq_ignore_ascii_case("charset"));
    let is_utf8 = |charset: &str| {
        ["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
    };
    match charsets.map(|(_, charset)| charset.trim_matches('"')).find(|charset| !is_utf8(charset)) {
        Some(_) => Err(Error::new(
            Reason::MalformedRequest,
            "the charset of the body must be UTF-8 (RFC 8259)",
        )),
        None => Ok(()),
    }
}

/// What the path gives; a body that says otherwise is refused.
fn apply_path(found: &Found<'_, '_>, message: &mut DynamicMessage) -> Result<(), Error> {
    for variable in &found.route.variables {
        let field = &variable.field;
        let text = found.text(variable)?;
        let value = scalar::from_text(&field.last().kind(), &text)
            .map_err(|expected| Error::field(field.name(), expected))?;
        if field.get(message).is_some_and(|given| given != value) {
            return Err(Error::field(field.name(), "differs from the path"));
        }
        let entry =
            field.entry(message).ok_or_else(|| Error::internal("a field path leads nowhere"))?;
        *entry = value;
    }
    Ok(())
}
