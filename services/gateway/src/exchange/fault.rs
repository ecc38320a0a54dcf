//! Internal faults: the caller learns that there was one, and the log says why.

use std::fmt::Display;

use outrider_model::Error;
use outrider_rpc::{cause, from_status, role::is_from_role};
use outrider_telemetry::Seldom;
use tonic::Status;

/// When a role breaks, all its answers in flight break off.
static BROKEN_OFF: Seldom = Seldom::new();

/// Converts an error of a library into an internal fault. For errors that say nothing about what a
/// client sent.
pub(crate) fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |error| {
        tracing::error!(%error, what, "the gateway failed in a way that no request may cause");
        Error::internal(what)
    }
}

/// Converts the panic of a separate task into an internal fault. The text of the panic may have
/// data of a client, so only its location is logged, by the panic hook of the process.
pub(crate) fn panicked<E>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |_| {
        tracing::error!(what, "a task of the gateway panicked");
        Error::internal("a fault of the server")
    }
}

/// Returns why an answer of a role ended early: the role's own error, or UNAVAILABLE if the
/// connection broke.
pub(crate) fn broken_off(status: &Status) -> Error {
    if is_from_role(status) {
        return from_status(status);
    }
    if let Some(times) = BROKEN_OFF.happened() {
        tracing::warn!(error = cause::of_status(status), times, "a role broke off its answer");
    }
    Error::unavailable("a server that is needed broke off its answer")
}

#[cfg(test)]
mod tests {
    use outrider_model::Reason;
    use outrider_rpc::to_status;

    use super::*;

    #[test]
    fn what_a_role_says_is_passed_on_and_what_the_way_says_is_not() {
        let said = broken_off(&to_status(Error::new(Reason::CursorExpired, "too old")));
        assert_eq!((said.reason, &*said.message), (Reason::CursorExpired, "too old"));
        let broke = broken_off(&Status::internal(
            "h2 protocol error: error reading a body from connection 10.0.0.7",
        ));
        assert_eq!(broke.reason, Reason::Unavailable);
        assert!(!broke.message.contains("10.0.0.7"), "{}", broke.message);
    }
}
