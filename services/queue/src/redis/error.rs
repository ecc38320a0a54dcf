//! Turns failures of Redis into errors that name the step, the command, the server's message, and
//! what to do.

use ::redis::{Arg, Cmd, ErrorKind, RedisError};
use outrider_model::Error;
use outrider_telemetry::catalog::queue::COMMAND_ERRORS;

use super::{
    rights::Right,
    words::{explain, is_refusal, right_in, words_of},
};

/// Why a step failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The step, which is also a label of metrics.
    step: &'static str,
    /// The command as access control lists spell it, if it is known.
    command: Option<String>,
    why: Why,
}

#[derive(Debug, Clone)]
enum Why {
    /// The server replied with an error, or the connection broke.
    Said(RedisError),
    /// No connection can be made, or all connections are in use.
    Unconnected,
    TimedOut,
    /// The reply is one that no version of Redis gives.
    Unexpected,
}

impl Failure {
    /// The reply to a command was an error.
    pub(super) fn said(step: &'static str, command: Option<String>, error: RedisError) -> Self {
        Self { step, command, why: Why::Said(error) }
    }

    /// No connection can be made, for the reason of the last attempt, or all connections are in
    /// use.
    pub(super) fn unconnected(step: &'static str, last: Option<RedisError>) -> Self {
        let Some(error) = last else { return Self { step, command: None, why: Why::Unconnected } };
        Self::said(step, command_of_connecting(&error).map(str::to_owned), error)
    }

    pub(super) fn timed_out(step: &'static str) -> Self {
        Self { step, command: None, why: Why::TimedOut }
    }

    /// Returns the server's error, if there is one.
    pub(super) fn error(&self) -> Option<&RedisError> {
        match &self.why {
            Why::Said(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the right that is missing, if the failure is a refusal.
    pub(super) fn right(&self) -> Option<Right> {
        let error = self.error().filter(|error| is_refusal(error))?;
        Right::of(right_in(&words_of(error)).or(self.command.as_deref())?)
    }

    /// Describes the failure, in the server's words if it replied.
    pub(super) fn words(&self) -> String {
        self.error().map_or_else(|| self.cause(), words_of)
    }

    /// Whether the server replied with this code.
    pub(super) fn says(&self, code: &str) -> bool {
        self.error().is_some_and(|error| says(error, code))
    }

    fn cause(&self) -> String {
        let error = match &self.why {
            Why::Said(error) => error,
            Why::Unconnected => return "no connection".to_owned(),
            Why::TimedOut => return "it did not answer in time".to_owned(),
            Why::Unexpected => return "unexpected answer".to_owned(),
        };
        if error.is_timeout() {
            "it did not answer in time".to_owned()
        } else if error.is_connection_refusal() {
            "the connection was refused".to_owned()
        } else if error.is_connection_dropped() {
            "the connection broke".to_owned()
        } else {
            explain(self.command.as_deref(), &words_of(error), is_refusal(error))
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        COMMAND_ERRORS.with_label_values(&[failure.step]).inc();
        Self::unavailable(format!("redis: {}: {}", failure.step, failure.cause()))
    }
}

/// The reply is one that no version of Redis gives.
pub(super) fn unexpected(step: &'static str) -> Error {
    Failure { step, command: None, why: Why::Unexpected }.into()
}

/// Commands whose rights also depend on their second word.
const WITH_SECOND_WORD: [&str; 5] = ["client", "cluster", "script", "xgroup", "xinfo"];

/// Returns the name of a command as access control lists spell it.
pub(super) fn name_of(command: &Cmd) -> Option<String> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => String::from_utf8_lossy(word).to_lowercase(),
        _ => String::new(),
    });
    let first = words.next()?;
    Some(with_second_word(first, || words.next()))
}

/// Returns a command's name, with its second word if rights depend on it.
pub(super) fn with_second_word(first: String, second: impl FnOnce() -> Option<String>) -> String {
    match WITH_SECOND_WORD.contains(&first.as_str()).then(second).flatten() {
        Some(second) => format!("{first}|{second}"),
        None => first,
    }
}

/// Returns the command that failed while connecting, as far as the library says.
fn command_of_connecting(error: &RedisError) -> Option<&'static str> {
    let text = error.to_string().to_lowercase();
    let known = [
        ("switch database", "select"),
        ("authentication", "auth"),
        ("wrongpass", "auth"),
        ("noauth", "auth"),
    ];
    let found =
        known.into_iter().chain([("slots", "cluster|slots")]).find(|(sign, _)| text.contains(sign));
    found.map(|(_, command)| command)
}

/// Whether the server replied with this code. For a failure in a script, Redis 6 has the code in
/// the text, as a word with or without a dash.
pub(super) fn says(error: &RedisError, code: &str) -> bool {
    let in_script = || {
        let text = error.detail().filter(|text| text.starts_with("Error running script"));
        text.is_some_and(|text| {
            text.split_ascii_whitespace().any(|word| word.trim_start_matches('-') == code)
        })
    };
    error.code() == Some(code) || in_script()
}

/// Whether the connection can be used for the next command. A server that no longer accepts writes
/// has become a replica; a new connection to the same address may reach the master.
pub(super) fn leaves_usable(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) && !says(error, "READONLY")
}

#[cfg(test)]
pub(super) mod tests {
    use ::redis::{Value, parse_redis_value};

    use super::*;

    pub(in super::super) fn error(answer: &str) -> RedisError {
        let answer = parse_redis_value(format!("-{answer}\r\n").as_bytes()).expect("an answer");
        let Value::ServerError(error) = answer else { panic!("no error: {answer:?}") };
        error.into()
    }

    fn text(command: Option<&str>, answer: &str) -> String {
        Error::from(Failure::said("step", command.map(str::to_owned), error(answer)))
            .message
            .into_owned()
    }

    #[test]
    fn codes_are_found_where_each_version_puts_them() {
        let six = "ERR Error running script (call to f_48a2): @user_script:1: NOGROUP No such key \
            's' or consumer group 'g'";
        let dashed = "ERR Error running script (call to f_86b6): @user_script:1: @user_script: 1: \
            -OOM command not allowed";
        assert!(says(&error(six), "NOGROUP") && !says(&error(six), "OOM"));
        assert!(says(&error(dashed), "OOM"));
        assert!(says(&error("NOGROUP No such key 's'"), "NOGROUP"));
        // A quoted name in the text is not a code.
        assert!(!says(&error("ERR unknown command 'NOGROUP'"), "NOGROUP"));
    }

    #[test]
    fn a_replica_is_left() {
        assert!(
            leaves_usable(&error("OOM command not allowed"))
                && leaves_usable(&error("MISCONF Errors writing to the AOF file"))
        );
        assert!(!leaves_usable(&error("READONLY You can't write against a read only replica.")));
        let in_script = "ERR Error running script (call to f_1): @user_script:1: -READONLY You \
            can't write against a read only replica.";
        assert!(!leaves_usable(&error(in_script)));
    }

    #[test]
    fn a_refusal_is_told_with_the_command_the_words_and_the_right() {
        assert_eq!(
            text(
                Some("xgroup|create"),
                "NOPERM this user has no permissions to run the 'xgroup|create' command"
            ),
            "redis: step: XGROUP CREATE is refused: \"NOPERM this user has no permissions to run \
                the 'xgroup|create' \
             command\": grant the user +xgroup|create (docs/operations.md)"
        );
        assert_eq!(
            text(None, "ERR Protocol error: 1"),
            "redis: step: \"ERR Protocol error: 1\"",
            "what nobody knows is told as it is"
        );
        assert!(
            text(Some("hset"), "OOM command not allowed when used memory > 'maxmemory'.")
                .ends_with("its memory is full")
        );
    }

    #[test]
    fn a_failure_of_connecting_names_its_command() {
        let refused = ::redis::RedisError::from((
            ErrorKind::AuthenticationFailed,
            "Password authentication failed",
        ));
        let told = Error::from(Failure::unconnected("read", Some(refused))).message;
        assert!(
            told.starts_with("redis: read: AUTH is refused: \"") && told.contains("queue.url"),
            "{told}"
        );
        assert_eq!(
            Error::from(Failure::unconnected("read", None)).message,
            "redis: read: no connection"
        );
    }

    #[test]
    fn commands_are_named_as_access_control_lists_spell_them() {
        let name = |words: &[&str]| {
            let mut command = Cmd::new();
            words.iter().for_each(|word| {
                command.arg(word);
            });
            name_of(&command)
        };
        assert_eq!(name(&["HLEN", "key"]).as_deref(), Some("hlen"));
        assert_eq!(name(&["CLIENT", "ID"]).as_deref(), Some("client|id"));
        assert_eq!(name(&[]), None);
    }
}
