//! Failures of commands, and their exit codes.

use std::fmt;

use outrider_model::Error;
use outrider_rpc::{cause, status::from_status};
use tonic::{Code, Status};

use crate::printable::printable;

/// The reason why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The server refused, or something on this side failed. Exit code 1.
    Refused(Error),
    /// Another failure on this side. Exit code 1.
    Other(anyhow::Error),
    /// The command line is incomplete or wrong. Exit code 2.
    Usage(String),
    /// The server does not answer. Exit code 3.
    Unreachable(String),
    /// The checked data is wrong. Exit code 4.
    Broken(String),
}

impl Failure {
    /// Returns the exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Broken(_) => 4,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => {
                write!(f, "{}: {}", error.reason, printable(&error.message))?;
                for violation in &error.violations {
                    let text = format!("{}: {}", violation.field, violation.description);
                    // A single violation is often the message itself.
                    if text != error.message {
                        write!(f, "\n  {}", printable(&text))?;
                    }
                }
                match error.retry_after {
                    Some(after) => {
                        write!(f, "\n  try again in {}", humantime::format_duration(after))
                    }
                    None => Ok(()),
                }
            }
            Self::Other(error) => {
                write!(f, "{}", printable(&chain(error)))?;
                match error
                    .chain()
                    .find_map(|cause| cause.downcast_ref::<outrider_store::Failure>()?.advice())
                {
                    Some(advice) => write!(f, "\n  {advice}"),
                    None => Ok(()),
                }
            }
            Self::Usage(message) | Self::Broken(message) => write!(f, "{message}"),
            Self::Unreachable(message) => write!(f, "the server is not reachable: {message}"),
        }
    }
}

/// Formats an error with its causes, each once, because many errors contain their cause.
fn chain(error: &anyhow::Error) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !told.iter().any(|told| told.contains(&text)) {
            told.push(text);
        }
    }
    told.join(": ")
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A response of the gateway has details. One without details comes from the transport, or from
/// something that is not a gateway.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        if status.details().is_empty()
            && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
        {
            return Self::Unreachable(printable(&cause::of_status(&status)));
        }
        Self::Refused(from_status(&status))
    }
}

#[cfg(test)]
mod tests {
    use outrider_model::Reason;
    use outrider_rpc::to_status;

    use super::*;

    #[test]
    fn refusals_and_unreachable_servers_are_told_apart() {
        let refused = Failure::from(to_status(Error::field("event_type", "is required")));
        assert_eq!(refused.code(), 1);
        let text = refused.to_string();
        assert_eq!(text, format!("{}: event_type: is required", Reason::InvalidField));
        let mut two = Error::field("event_type", "is required");
        two.violations.push(outrider_model::FieldViolation {
            field: "data".into(),
            description: "is no JSON".into(),
        });
        assert!(Failure::Refused(two).to_string().ends_with("\n  data: is no JSON"));
        assert_eq!(Failure::from(Status::unavailable("tcp connect error")).code(), 3);
        let overloaded = Error {
            reason: Reason::Unavailable,
            message: "later".into(),
            violations: Vec::new(),
            retry_after: None,
        };
        assert_eq!(Failure::from(to_status(overloaded)).code(), 1);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
    }

    #[test]
    fn every_cause_is_told_once() {
        let file = std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = format!("cannot read x: {file}");
        let error = anyhow::Error::new(file).context(text.clone()).context("tls");
        assert_eq!(Failure::from(error).to_string(), format!("tls: {text}"));
    }
}
