//! Uploads of newline-delimited JSON: lines are read as they come, travel in calls of many, and are
//! answered by a line each, in order. Which methods take them is said by the option `ndjson` in the
//! protos.
//!
//! An upload has no length. What it holds is bounded: a line, a batch in the making, the batches of
//! its calls, and results that the client does not take; then it is read no further.

mod batch;
pub(crate) mod lines;
mod upload;

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use outrider_model::Error;
use outrider_proto::DESCRIPTORS;
use outrider_shares::Holder;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value};
use tokio::time::Instant;
use tonic::body::Body;

use self::{batch::Caller, upload::Upload};
use crate::{
    Options, Shared, answer::Refusal, body, field_path::Unresolved, request_id, rest, route::Route,
    unsent,
};

/// The media type of requests and answers.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";

/// How a method takes lines.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The field of the request that holds the entries.
    pub(crate) request: FieldDescriptor,
    /// The type of an entry.
    pub(crate) entry: MessageDescriptor,
    /// The field of the answer that holds the results.
    pub(crate) response: FieldDescriptor,
    /// Entries of one call.
    pub(crate) max_entries: usize,
}

impl Rule {
    /// The rule of a method that has one. Fails with the name of a field that is none, or no list
    /// of messages.
    pub(crate) fn of(method: &MethodDescriptor) -> Result<Option<Self>, (String, Unresolved)> {
        let Some(extension) = DESCRIPTORS.get_extension_by_name("outrider.options.v1.ndjson")
        else {
            return Ok(None);
        };
        let options = method.options();
        if !options.has_extension(&extension) {
            return Ok(None);
        }
        let option = options.get_extension(&extension);
        let of = |name: &str| {
            option
                .as_message()
                .and_then(|rule| rule.get_field_by_name(name).map(std::borrow::Cow::into_owned))
        };
        let field = |name: &str, message: MessageDescriptor| {
            let name = of(name).as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            let field = message
                .get_field_by_name(&name)
                .ok_or_else(|| (name.clone(), Unresolved::Unknown))?;
            match field.kind().as_message().filter(|_| field.is_list()) {
                Some(entry) => Ok((field.clone(), entry.clone())),
                None => Err((name, Unresolved::NotList)),
            }
        };
        let (request, entry) = field("request_field", method.input())?;
        let (response, _) = field("response_field", method.output())?;
        let max_entries =
            of("max_entries").as_ref().and_then(Value::as_u32).unwrap_or(0).max(1) as usize;
        Ok(Some(Self { request, entry, response, max_entries }))
    }
}

/// The rule of a request that brings lines.
pub(crate) fn asked<'r>(route: &'r Route, headers: &HeaderMap) -> Option<&'r Rule> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    route.ndjson.as_ref().filter(|_| essence.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// How long an upload may take to its first results: a client may take its time for the first line,
/// and the calls theirs. When there is an error instead, the rest of the body is read for a moment.
pub(crate) fn first_results(options: &Options) -> Duration {
    options
        .upload_idle_timeout
        .saturating_add(options.request_timeout)
        .saturating_add(options.linger)
}

/// Answers an upload, from its first results on. `base` is the request without entries.
pub(crate) async fn answer(
    shared: &Shared,
    route: &Route,
    rule: &Rule,
    base: DynamicMessage,
    parts: &Parts,
    mut body: Incoming,
    end: Option<Instant>,
) -> Result<Response<Body>, Refusal> {
    let holder = Holder::of_request(&parts.extensions);
    let caller = Caller {
        backend: shared
            .backend(&route.package)
            .ok_or_else(|| Error::internal("the method has no role"))?,
        grpc_path: route.grpc_path.clone(),
        headers: rest::metadata(&parts.headers),
        base,
        output: route.output.clone(),
        rule: rule.clone(),
        max_answer_bytes: shared.given.max_answer_bytes,
        decoding: shared.decoding.clone(),
        holder,
        timeout: shared.options.request_timeout,
    };
    let request_id =
        parts.headers.get(request_id::HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let admitted = async {
        let without_lines = caller.introduce().await?;
        // Only then: places are few, and not for those who may not call.
        Ok((without_lines, shared.uploads.take(holder, 1)?))
    };
    let (without_lines, place) = match admitted.await {
        Ok(admitted) => admitted,
        Err(error) => {
            // Who asks first has sent nothing yet.
            if !parts.headers.contains_key(EXPECT) {
                body::linger(&shared.options, &mut body).await;
            }
            return Err(Refusal::closing(error));
        }
    };
    let upload = Upload::new(shared, caller, holder, request_id, end, (without_lines, place));
    let results = upload.start(body).await.map_err(Refusal::closing)?;
    let results =
        Body::new(StreamBody::new(futures::StreamExt::map(results, |text| text.map(Frame::data))));
    let mut answer = unsent::stream(shared, holder, Response::new(results));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Proxies that collect answers would hold back the results of a client that waits for them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}
