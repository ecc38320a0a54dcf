//! Errors on the wire: `google.rpc.Status` with `ErrorInfo`, `BadRequest` and `RetryInfo`
//! (AIP-193). One table maps reasons to codes.

use std::{collections::HashMap, time::Duration};

use outrider_model::{Error, FieldViolation, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::wire::fit::fit;

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "outrider.dev";

/// Returns the gRPC code and the HTTP status of a reason.
#[must_use]
pub fn codes(reason: Reason) -> (Code, u16) {
    match reason {
        Reason::InvalidField
        | Reason::PayloadSchemaViolation
        | Reason::MalformedRequest
        | Reason::InvalidPageToken => (Code::InvalidArgument, 400),
        Reason::TooLarge => (Code::InvalidArgument, 413),
        Reason::UriTooLong => (Code::InvalidArgument, 414),
        Reason::TooSlow => (Code::DeadlineExceeded, 408),
        Reason::MissingCredentials | Reason::InvalidCredentials => (Code::Unauthenticated, 401),
        Reason::MissingScope | Reason::BeyondOwnScope => (Code::PermissionDenied, 403),
        Reason::NotFound => (Code::NotFound, 404),
        Reason::UnknownMethod => (Code::Unimplemented, 404),
        Reason::MethodNotAllowed => (Code::Unimplemented, 405),
        Reason::AlreadyExists | Reason::IdempotencyConflict => (Code::AlreadyExists, 409),
        Reason::FailedPrecondition | Reason::DeliveriesPending | Reason::PayloadErased => {
            (Code::FailedPrecondition, 412)
        }
        Reason::CursorExpired => (Code::OutOfRange, 410),
        Reason::HeadersTooLarge => (Code::InvalidArgument, 431),
        Reason::UnsupportedMediaType => (Code::Unimplemented, 415),
        Reason::NotAcceptable => (Code::InvalidArgument, 406),
        Reason::Overloaded | Reason::ShareExhausted => (Code::ResourceExhausted, 429),
        Reason::Unavailable | Reason::ShuttingDown => (Code::Unavailable, 503),
        Reason::DeadlineExceeded => (Code::DeadlineExceeded, 504),
        Reason::StreamIdle => (Code::DeadlineExceeded, 408),
        Reason::Internal => (Code::Internal, 500),
    }
}

/// Returns the HTTP status of a reason.
#[must_use]
pub fn http_status(reason: Reason) -> http::StatusCode {
    http::StatusCode::from_u16(codes(reason).1).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
}

/// Converts an error to a gRPC status with its details, as far as they fit the head of an answer.
#[must_use]
pub fn to_status(error: Error) -> Status {
    whole(fit(error))
}

fn whole(error: Error) -> Status {
    let mut details = ErrorDetails::with_error_info(error.reason.as_str(), DOMAIN, HashMap::new());
    for violation in error.violations {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    if let Some(after) = error.retry_after {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(codes(error.reason).0, error.message, details)
}

/// Converts a gRPC status to an error: by its details if it is ours, otherwise by its code.
#[must_use]
pub fn from_status(status: &Status) -> Error {
    let details = status.get_error_details();
    let named = details
        .error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| Reason::ALL.iter().find(|reason| reason.as_str() == info.reason));
    let reason = named.copied().unwrap_or(match status.code() {
        Code::InvalidArgument => Reason::MalformedRequest,
        // tonic answers so to a message over the decoding limit.
        Code::OutOfRange => Reason::TooLarge,
        // The peer asked the transport to slow down.
        Code::ResourceExhausted => Reason::Overloaded,
        Code::Unauthenticated => Reason::InvalidCredentials,
        Code::PermissionDenied => Reason::MissingScope,
        Code::NotFound => Reason::NotFound,
        Code::Unimplemented => Reason::UnknownMethod,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::FailedPrecondition => Reason::FailedPrecondition,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Unavailable | Code::Cancelled | Code::Aborted | Code::Unknown => Reason::Unavailable,
        _ => Reason::Internal,
    });
    Error {
        reason,
        message: status.message().to_owned().into(),
        violations: details
            .bad_request()
            .map(|bad| bad.field_violations.iter())
            .into_iter()
            .flatten()
            .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
            .collect(),
        retry_after: details.retry_info().and_then(|info| info.retry_delay).or(matches!(
            reason,
            Reason::Unavailable | Reason::Overloaded | Reason::ShareExhausted
        )
        .then_some(Duration::from_secs(1))),
    }
}

/// Converts an error to a message, for results per item. It travels in a body, so it is complete.
#[must_use]
pub fn to_message(error: Error) -> outrider_proto::google::rpc::Status {
    let status = whole(error);
    // The details of a status are an encoded google.rpc.Status.
    prost::Message::decode(status.details()).unwrap_or_else(|_| {
        outrider_proto::google::rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        }
    })
}

/// Reads an error from a message.
#[must_use]
pub fn from_message(message: &outrider_proto::google::rpc::Status) -> Error {
    let code = Code::from_i32(message.code);
    from_status(&Status::with_details(
        code,
        message.message.clone(),
        prost::Message::encode_to_vec(message).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            let error = Error {
                reason: *reason,
                message: "what".into(),
                violations: vec![FieldViolation { field: "a.b".into(), description: "bad".into() }],
                retry_after: Some(Duration::from_secs(2)),
            };
            assert_eq!(from_status(&to_status(error.clone())), error);
            assert_eq!(from_message(&to_message(error.clone())), error);
            assert!(
                http_status(*reason).is_client_error() || http_status(*reason).is_server_error()
            );
        }
    }

    #[test]
    fn a_head_has_room_for_the_longest() {
        let of = |count: usize, bytes: usize| {
            let violation = |number| FieldViolation {
                field: format!("f[{number}]"),
                description: "é".repeat(bytes / 2),
            };
            Error::fields((0..count).map(violation).collect())
        };
        for error in [of(200, 100), of(1, 100_000)] {
            let head = to_status(error).into_http::<()>();
            let bytes: usize = head
                .headers()
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            // A header needs three bytes for each byte that is not ASCII, so these errors are the
            // worst case.
            assert!(bytes <= 8 * 1024, "{bytes}");
        }
    }
}
