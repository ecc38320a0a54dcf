//! What Redis answers, as errors of ours.

use ::redis::{ErrorKind, RedisError};
use outrider_model::Error;
use outrider_telemetry::catalogue::queue::COMMAND_ERRORS;

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
        return failed(step, &name_of(error));
    };
    failed(step, cause)
}

fn failed(step: &'static str, cause: &str) -> Error {
    COMMAND_ERRORS.with_label_values(&[step]).inc();
    Error::unavailable(format!("redis: {step}: {cause}"))
}

/// All connections are in use, or none can be made.
pub(super) fn no_connection(step: &'static str) -> Error {
    failed(step, "no connection")
}

/// A command or step took longer than it may.
pub(super) fn timed_out(step: &'static str) -> Error {
    failed(step, "it did not answer in time")
}

/// An answer that no version of Redis gives.
pub(super) fn unexpected(step: &'static str) -> Error {
    failed(step, "unexpected answer")
}

/// Whether the server answered with this code; of what fails in a script Redis 6 tells it in the text, as a word with or without
/// a dash.
pub(super) fn says(error: &RedisError, code: &str) -> bool {
    let in_script = || {
        let text = error.detail().filter(|text| text.starts_with("Error running script"));
        text.is_some_and(|text| text.split_ascii_whitespace().any(|word| word.trim_start_matches('-') == code))
    };
    error.code() == Some(code) || in_script()
}

/// Whether the connection can be used for the next command. A server that takes no writes any more is a replica now: the master may be
/// reached at the same address.
pub(super) fn leaves_usable(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) && !says(error, "READONLY")
}

/// The code, or the kind of failure.
pub(super) fn name_of(error: &RedisError) -> String {
    match error.code() {
        Some(code) => code.chars().filter(char::is_ascii_alphanumeric).take(32).collect(),
        None => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ::redis::{Value, parse_redis_value};

    use super::*;

    fn error(answer: &str) -> RedisError {
        let answer = parse_redis_value(format!("-{answer}\r\n").as_bytes()).expect("an answer");
        let Value::ServerError(error) = answer else { panic!("no error: {answer:?}") };
        error.into()
    }

    #[test]
    fn codes_are_found_where_each_version_puts_them() {
        let six = "ERR Error running script (call to f_48a2): @user_script:1: NOGROUP No such key 's' or consumer group 'g'";
        let dashed = "ERR Error running script (call to f_86b6): @user_script:1: @user_script: 1: -OOM command not allowed";
        assert!(says(&error(six), "NOGROUP") && !says(&error(six), "OOM"));
        assert!(says(&error(dashed), "OOM"));
        assert!(says(&error("NOGROUP No such key 's'"), "NOGROUP"));
        // A name in a text is no code.
        assert!(!says(&error("ERR unknown command 'NOGROUP'"), "NOGROUP"));
    }

    #[test]
    fn a_replica_is_left() {
        assert!(
            leaves_usable(&error("OOM command not allowed")) && leaves_usable(&error("MISCONF Errors writing to the AOF file"))
        );
        assert!(!leaves_usable(&error("READONLY You can't write against a read only replica.")));
        let in_script =
            "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.";
        assert!(!leaves_usable(&error(in_script)));
    }

    #[test]
    fn texts_quote_nothing() {
        for answer in ["WRONGPASS invalid user hunter2", "ERR value hunter2", "NOPERM user hunter2", "OOM hunter2"] {
            let text = unavailable("read", &error(answer)).to_string();
            assert!(text.starts_with("redis: read: ") && !text.contains("hunter2"), "{text}");
        }
    }
}
