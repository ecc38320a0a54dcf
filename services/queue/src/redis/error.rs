//! What Redis answers, as errors of ours.

use ::redis::{ErrorKind, RedisError};
use outrider_model::Error;

/// The error of a command or step. Its text holds neither addresses nor what the server quotes of our commands.
pub(super) fn unavailable(step: &'static str, error: &RedisError) -> Error {
    let cause = if says(error, "OOM") {
        "its memory is full"
    } else if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connection_refusal() {
        "the connection was refused"
    } else if error.is_connection_dropped() {
        "the connection broke"
    } else {
        return Error::unavailable(format!("redis: {step}: {}", name_of(error)));
    };
    Error::unavailable(format!("redis: {step}: {cause}"))
}

/// A command or step took longer than it may.
pub(super) fn timed_out(step: &'static str) -> Error {
    Error::unavailable(format!("redis: {step}: it did not answer in time"))
}

/// An answer that no version of Redis gives.
pub(super) fn unexpected(step: &'static str) -> Error {
    Error::unavailable(format!("redis: {step}: unexpected answer"))
}

/// Whether the server answered with this code; Redis 6 puts the code of what fails in a script into the text.
pub(super) fn says(error: &RedisError, code: &str) -> bool {
    error.code() == Some(code)
        || matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
            && error.detail().is_some_and(|detail| detail.contains(&format!("-{code} ")))
}

/// Whether the connection can be used for the next command.
pub(super) fn leaves_usable(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// The code, or the kind of failure.
pub(super) fn name_of(error: &RedisError) -> String {
    match error.code() {
        Some(code) => code.chars().filter(char::is_ascii_alphanumeric).take(32).collect(),
        None => error.category().to_owned(),
    }
}
