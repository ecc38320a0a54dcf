//! The reasons why an exchange has no response.

use std::{error::Error as _, io};

use outrider_model::AttemptOutcome;
use outrider_rpc::DialError;

use super::{phase::Phase, tls};

/// The reason why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The egress cannot be reached, so nothing was tried.
    EgressUnavailable,
    /// The timeout of the exchange has passed.
    TimedOut(Phase),
    /// An attempt failed. The text is for the owner of the endpoint and names no address.
    Attempt(AttemptOutcome, String),
}

impl Failure {
    pub(crate) fn attempt(outcome: AttemptOutcome, message: impl Into<String>) -> Self {
        Self::Attempt(outcome, message.into())
    }
}

pub(crate) fn undialed(error: DialError) -> Failure {
    let outcome = match error {
        DialError::EgressUnavailable => return Failure::EgressUnavailable,
        DialError::Refused { .. } => AttemptOutcome::AddressRefused,
        DialError::NotResolved(_) => AttemptOutcome::NameNotResolved,
        DialError::ConnectFailed(_) => AttemptOutcome::ConnectionFailed,
    };
    Failure::attempt(outcome, error.to_string())
}

/// Converts an error of an open connection.
pub(crate) fn broken(error: &hyper::Error) -> Failure {
    if let Some(told) = tls::alert_after(error) {
        return Failure::attempt(AttemptOutcome::TlsFailed, told);
    }
    let (outcome, message) = if error.is_parse() {
        (AttemptOutcome::BadResponse, "the answer is not HTTP/1.1")
    } else if error.is_incomplete_message() {
        (AttemptOutcome::ConnectionFailed, "the connection was closed before the answer")
    } else {
        (
            AttemptOutcome::ConnectionFailed,
            match io_kind(error) {
                Some(io::ErrorKind::ConnectionReset) => {
                    "the endpoint reset the connection before the answer"
                }
                Some(io::ErrorKind::TimedOut) => {
                    "the endpoint did not answer any more: it, or the way to it, is gone"
                }
                Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                    "the endpoint was not reachable any more before the answer"
                }
                _ => "the connection broke before the answer",
            },
        )
    };
    Failure::attempt(outcome, message)
}

/// Returns the kind of the IO error in an error of the HTTP library.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}
