//! The answer to an upload of lines, from its first results on.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use outrider_model::Error;
use outrider_shares::Holder;
use prost_reflect::DynamicMessage;
use tokio::time::Instant;
use tonic::body::Body;

use super::{batch::CallTemplate, upload::Upload};
use crate::{
    Options,
    exchange::{Shared, answer::Refusal, body, call, unsent},
    request_id,
    route::{LinesRule, Route, lines_rule::MEDIA_TYPE},
};

/// Returns the rule of the route if the request's content is newline-delimited JSON.
pub(crate) fn rule_for<'r>(route: &'r Route, headers: &HeaderMap) -> Option<&'r LinesRule> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    route.ndjson.as_ref().filter(|_| essence.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Returns how long an upload may take until its first results: the idle timeout for its first
/// line, the timeout of a call, and the time for which the rest of the body is read if there is an
/// error instead.
pub(crate) fn first_results(options: &Options) -> Duration {
    options
        .upload_idle_timeout
        .saturating_add(options.request_timeout)
        .saturating_add(options.linger)
}

/// Answers an upload. Returns with its first results. `base` is the request without entries.
pub(crate) async fn answer(
    shared: &Shared,
    route: &Route,
    rule: &LinesRule,
    base: DynamicMessage,
    parts: &Parts,
    mut body: Incoming,
    end: Option<Instant>,
) -> Result<Response<Body>, Refusal> {
    let holder = Holder::of_request(&parts.extensions);
    let caller = CallTemplate {
        backend: shared
            .backends
            .of(&route.package)
            .ok_or_else(|| Error::internal("the method has no role"))?,
        grpc_path: route.grpc_path.clone(),
        headers: call::metadata(&parts.headers),
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
        let without_lines = caller.call_without_entries().await?;
        // Taken only now, because slots are scarce and not for callers who are not permitted.
        Ok((without_lines, shared.uploads.take(holder, 1)?))
    };
    let (without_lines, place) = match admitted.await {
        Ok(admitted) => admitted,
        Err(error) => {
            // A client that waits for `100 Continue` has sent nothing yet.
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
    // Some proxies collect answers, and would hold back the results from a client that waits for
    // them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}
