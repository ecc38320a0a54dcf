//! Errors and answers as HTTP.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use outrider_model::{Error, FieldViolation};
use outrider_rpc::{http_status, status::codes, to_status};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use tonic::{Code, body::Body};

/// An error, and what an HTTP answer needs besides it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// With METHOD_NOT_ALLOWED: the methods that are allowed.
    pub(crate) allow: Option<String>,
    /// Whether the rest of the request was not read, so that the connection must be closed.
    pub(crate) close: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, allow: None, close: false }
    }
}

impl Refusal {
    /// Refuses with this error and closes the connection.
    pub(crate) fn closing(error: Error) -> Self {
        Self { close: true, ..error.into() }
    }

    /// Converts to a REST answer.
    pub(crate) fn into_json(self, request_id: &HeaderValue) -> Response<Body> {
        let mut answer = json(self.json(request_id));
        *answer.status_mut() = http_status(self.error.reason);
        self.write_headers(answer.headers_mut());
        answer
    }

    /// Returns the text of the REST answer.
    pub(crate) fn json(&self, request_id: &HeaderValue) -> Vec<u8> {
        let body = Outer { error: ErrorObject::of(&self.error, request_id.to_str().ok()) };
        serde_json::to_vec(&body)
            .unwrap_or_else(|_| br#"{"error":{"code":500,"status":"INTERNAL"}}"#.to_vec())
    }

    /// Converts to a gRPC answer.
    pub(crate) fn into_grpc(self) -> Response<Body> {
        let close = self.close;
        let mut answer = to_status(self.error).into_http::<Body>();
        if close {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Converts to a gRPC answer whose HTTP status is an error too, for clients that do not speak
    /// gRPC.
    pub(crate) fn into_grpc_with_status(self) -> Response<Body> {
        let status = http_status(self.error.reason);
        let allow = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok());
        let mut answer = self.into_grpc();
        *answer.status_mut() = status;
        if let Some(allow) = allow {
            answer.headers_mut().insert(ALLOW, allow);
        }
        answer
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = retry_seconds(&self.error) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if codes(self.error.reason).0 == Code::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) =
            self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok())
        {
            headers.insert(ALLOW, allow);
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// A JSON answer with status 200. Answers may have secrets (a new API key), so caches must not
/// store them.
pub(crate) fn json(text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Body::new(Full::new(text.into())));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[derive(Serialize)]
struct Outer<'a> {
    error: ErrorObject<'a>,
}

/// The one form of errors in JSON.
#[derive(Serialize)]
pub(crate) struct ErrorObject<'a> {
    /// The HTTP status.
    code: u16,
    /// The name of the gRPC code.
    status: &'static str,
    reason: &'static str,
    message: &'a str,
    #[serde(serialize_with = "violations")]
    violations: &'a [FieldViolation],
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl<'a> ErrorObject<'a> {
    pub(crate) fn of(error: &'a Error, request_id: Option<&'a str>) -> Self {
        let (code, http) = codes(error.reason);
        Self {
            code: http,
            status: code_name(code),
            reason: error.reason.as_str(),
            message: &error.message,
            violations: &error.violations,
            retry_after_seconds: retry_seconds(error),
            request_id,
        }
    }
}

#[derive(Serialize)]
struct Violation<'a> {
    field: &'a str,
    description: &'a str,
}

fn violations<S: Serializer>(
    violations: &[FieldViolation],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(violations.len()))?;
    for FieldViolation { field, description } in violations {
        list.serialize_element(&Violation { field, description })?;
    }
    list.end()
}

/// Whole seconds, rounded up. The header cannot say less than one.
fn retry_seconds(error: &Error) -> Option<u64> {
    error.retry_after.map(|after| (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
}

/// The name of a code in `google.rpc.Code`.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            let error =
                Error { retry_after: Some(Duration::from_millis(millis)), ..Error::internal("") };
            assert_eq!(retry_seconds(&error), Some(seconds));
        }
    }

    #[test]
    fn headers_follow_the_reason() {
        let id = HeaderValue::from_static("r");
        let answer = |error: Error| Refusal::from(error).into_json(&id);
        let missing = answer(Error::new(outrider_model::Reason::MissingCredentials, ""));
        assert_eq!(
            (missing.status().as_u16(), &missing.headers()[WWW_AUTHENTICATE]),
            (401, &HeaderValue::from_static("Bearer"))
        );
        let full = answer(Error::overloaded(""));
        assert_eq!(
            (full.status().as_u16(), &full.headers()[RETRY_AFTER]),
            (429, &HeaderValue::from_static("1"))
        );
        let closing = Refusal::closing(Error::internal("")).into_json(&id);
        assert_eq!(closing.headers()[CONNECTION], "close");
    }
}
