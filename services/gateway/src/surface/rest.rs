//! A REST request: converted to a message, sent to the role, and the answer converted back.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;
use outrider_model::{Error, FieldViolation, Principal, Reason};
use outrider_shares::Holder;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tonic::body::Body;

use crate::{
    exchange::{
        Shared,
        answer::Refusal,
        body::{self, BufferedBody},
        call, compress,
        cost::{Cost, HeldRoom},
        deadline::Deadline,
        ending,
        fault::fault,
        unsent,
    },
    json::{mask, payload, range, read, scalar, write},
    ndjson, request_id,
    route::{BodyRule, Found, Route, header_field, query},
    surface::stream,
};

/// Answers a request whose route was found.
pub(crate) async fn answer(
    shared: &Shared,
    found: &Found<'_, '_>,
    parts: &Parts,
    body: Incoming,
    deadline: &Deadline,
) -> Result<Response<Body>, Refusal> {
    let (route, end) = (found.route, deadline.asked_end());
    check_encoding(&parts.headers)?;
    header_field::check(&route.headers, &route.input, &parts.method, &parts.headers)
        .map_err(Refusal::closing)?;
    if let Some(rule) = ndjson::rule_for(route, &parts.headers) {
        let base = message(found, parts, BodyContent::default()).map_err(Refusal::closing)?;
        // Boxed, because it would enlarge the future of every request.
        return Box::pin(ndjson::answer(shared, route, rule, base, parts, body, end)).await;
    }
    if route.stream.is_some() {
        stream::check_accept(&parts.headers)?;
    }
    let BufferedBody { bytes, mut room } = body::read_whole(shared, parts, body, deadline).await?;
    let (given, decoded) = read_body(shared, route, parts, bytes).await?;
    let request = call::frame(&message(found, parts, given)?)?;
    // The body and the data decoded from it are gone. Room is held for the message until there is
    // an answer.
    drop(decoded);
    room.shrink(room.amount().saturating_sub(request.len()));
    let backend = shared
        .backends
        .of(&route.package)
        .ok_or_else(|| Error::internal("the method has no role"))?;
    let (limit, holder) = (shared.given.max_answer_bytes, Holder::of_request(&parts.extensions));
    if let Some(rule) = &route.stream {
        let caller = parts.extensions.get::<Principal>().cloned();
        let answer =
            call::open(backend, &route.grpc_path, call::metadata(&parts.headers), request, caller)
                .await;
        let answer = answer.map_err(|error| translate_to_rest(route, error))?;
        let body = ending::bounded(shared, answer, end).into_body();
        let id = parts
            .headers
            .get(request_id::HEADER)
            .cloned()
            .unwrap_or_else(|| HeaderValue::from_static(""));
        let events = stream::Events::new(rule, body, limit, shared.unsent.clone(), holder);
        let answer =
            stream::answer(events, id).await.map_err(|error| translate_to_rest(route, error))?;
        return Ok(unsent::stream(shared, holder, answer));
    }
    let answer =
        call::unary(backend, &route.grpc_path, call::metadata(&parts.headers), request, limit)
            .await;
    let answer = answer.map_err(|error| translate_to_rest(route, error))?;
    let answer = DynamicMessage::decode(route.output.clone(), answer)
        .map_err(fault("the answer does not decode"))?;
    let text = match &route.response_body {
        Some(field) => write::field(&answer, field)?,
        None => write::message(&answer)?,
    };
    Ok(unsent::whole(shared, holder, compress::json(text, &parts.headers).await)?)
}

/// A role names fields as the proto does. Translates the names that differ in REST.
fn translate_to_rest(route: &Route, mut error: Error) -> Error {
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

/// Removes the body, which an answer to HEAD must not have, but keeps its length.
pub(crate) fn without_body(answer: Response<Body>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// The content of a body: its value, and the names of the fields in it. A missing body counts as an
/// empty one: the role decides whether a field is required.
#[derive(Default)]
pub(crate) struct BodyContent {
    value: Option<Value>,
    present: Vec<String>,
}

pub(crate) fn message(
    found: &Found<'_, '_>,
    parts: &Parts,
    given: BodyContent,
) -> Result<DynamicMessage, Error> {
    transcoded(found, parts, given).map_err(|error| range::named(&found.route.input, error))
}

fn transcoded(
    found: &Found<'_, '_>,
    parts: &Parts,
    given: BodyContent,
) -> Result<DynamicMessage, Error> {
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
) -> Result<(BodyContent, Option<HeldRoom>), Error> {
    if body.is_empty() {
        return Ok((BodyContent::default(), None));
    }
    if matches!(route.body, BodyRule::None) {
        return Err(Error::new(Reason::MalformedRequest, "the request must have no body"));
    }
    check_media_type(&parts.headers)?;
    let holder = Holder::of_request(&parts.extensions);
    let (rule, input) = (route.body.clone(), route.input.clone());
    let decoded = shared
        .decoding
        .body(holder, body.len(), move |cost| decode_body(&rule, &input, &body, cost))
        .await;
    decoded.map(|(given, held)| (given, Some(held)))
}

/// Reads a body by its rule.
pub(crate) fn decode_body(
    rule: &BodyRule,
    input: &MessageDescriptor,
    body: &Bytes,
    cost: &Cost,
) -> Result<BodyContent, Error> {
    let read = match rule {
        BodyRule::Field(field) => {
            let mut read = read::field(body, field, cost)?;
            mask::keep_settable(field, &mut read.present);
            read
        }
        BodyRule::None | BodyRule::Whole => read::message(body, input, cost)?,
    };
    Ok(BodyContent { value: read.value, present: read.present })
}

/// Refuses a compressed body before it is read, because it would have to be decompressed to be
/// limited.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    let plain =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let violation = FieldViolation {
        field: "content-encoding".into(),
        description: "must be absent: compressed bodies are not supported".into(),
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

/// Sets the fields that the path gives. Refuses a body with a different value.
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
