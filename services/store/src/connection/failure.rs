//! Failures as operators see them: in the words of the database, with a remedy where one is known.
//! They are for terminals, logs and the operators' listener, never for callers of the API, because
//! they name hosts, roles and tables.

use std::{borrow::Cow, io::ErrorKind};

use sea_orm::{DbErr, RuntimeErr};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// `database.url` asks for something that is not possible.
    Parameter,
    /// The database cannot be reached.
    Unreachable,
    /// The database answered with a refusal.
    Refused,
    /// The schema lacks migrations.
    Schema,
    /// The master keys are not those of the database.
    Key,
}

/// The reason why the database does not do what an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {words}")]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    what: String,
    words: String,
    advice: Option<Cow<'static, str>>,
}

impl Failure {
    /// A failure in this crate's own words.
    pub(crate) fn new(
        kind: FailureKind,
        what: impl Into<String>,
        words: impl Into<String>,
    ) -> Self {
        Self { kind, what: what.into(), words: words.into(), advice: None }
    }

    /// `database.url` asks for something that is not possible. The words never contain its values.
    pub(crate) fn parameter(words: impl Into<String>) -> Self {
        Self::new(FailureKind::Parameter, "database.url", words)
    }

    /// A failure in the words of the database, its client library or the system.
    pub(crate) fn of(what: impl Into<String>, error: &sqlx::Error) -> Self {
        let kind = if code(error).is_some_and(|code| !is_away(&code)) {
            FailureKind::Refused
        } else {
            FailureKind::Unreachable
        };
        Self { advice: advice(error), ..Self::new(kind, what, full_message(error)) }
    }

    /// The same for an error of sea-orm.
    pub(crate) fn of_orm(what: impl Into<String>, error: &DbErr) -> Self {
        match sqlx_error(error) {
            Some(error) => Self::of(what, error),
            None => Self::new(FailureKind::Refused, what, error.to_string()),
        }
    }

    /// The same for a statement with data of tenants: without the details, which may quote a row.
    pub(crate) fn of_data(what: impl Into<String>, error: &DbErr) -> Self {
        Self { words: message_of_orm(error), ..Self::of_orm(what, error) }
    }

    pub(crate) fn with_advice(mut self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The remedy, if one is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

/// The message of the database with its code, or that of its client library or the system. Leaves
/// out what sqlx adds, such as the line in PostgreSQL's source.
pub(crate) fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => match database.code() {
            Some(code) => format!("{} ({code})", database.message()),
            None => database.message().to_owned(),
        },
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => format!("TLS: {error}"),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => "no connection came free in time".to_owned(),
        other => other.to_string(),
    }
}

/// The same for an error of sea-orm.
pub(crate) fn message_of_orm(error: &DbErr) -> String {
    sqlx_error(error).map_or_else(|| error.to_string(), message)
}

/// The message with PostgreSQL's detail and hint. Only for statements without data of tenants,
/// because a detail may quote a row.
fn full_message(error: &sqlx::Error) -> String {
    let mut words = message(error);
    if let sqlx::Error::Database(database) = error
        && let Some(database) = database.try_downcast_ref::<PgDatabaseError>()
    {
        for more in [database.detail(), database.hint()].into_iter().flatten() {
            words = format!("{words}; {more}");
        }
    }
    words
}

/// The driver's error within an error of sea-orm.
pub(crate) fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    Some(error)
}

/// The error code, if the database answered.
pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code().map(Cow::into_owned)
}

/// Whether a code of PostgreSQL means that it is unavailable for now: it is starting or shutting
/// down, or has no free connection.
pub(crate) fn is_away(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("53") || code.starts_with("08")
}

/// The address, user and database of a connection, for messages.
pub(crate) fn address(connect: &PgConnectOptions) -> String {
    let at = match connect.get_socket() {
        Some(socket) => format!("the socket in {}", socket.display()),
        None => format!("{}:{}", connect.get_host(), connect.get_port()),
    };
    let database =
        connect.get_database().map(|name| format!(", database {name}")).unwrap_or_default();
    format!("{at} as {}{database}", connect.get_username())
}

/// The remedy, by the code of PostgreSQL or SQLite or by the error of the system.
fn advice(error: &sqlx::Error) -> Option<Cow<'static, str>> {
    let advice = match error {
        sqlx::Error::Database(database) => of_code(&database.code()?)?,
        sqlx::Error::Io(error) => of_io(error)?,
        sqlx::Error::Tls(_) => {
            "see sslmode and sslrootcert in database.url: the authority and the name of the \
             certificate must fit"
        }
        sqlx::Error::PoolTimedOut => "raise database.max_connections, or database.acquire_timeout",
        _ => return None,
    };
    Some(advice.into())
}

fn of_io(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(
            "nothing listens there: is PostgreSQL running, and are the host and port of \
             database.url right?",
        ),
        ErrorKind::TimedOut => Some(
            "a firewall, or the wrong host in database.url? The time to wait is \
             database.acquire_timeout",
        ),
        ErrorKind::NotFound => Some(
            "there is no such socket: is PostgreSQL running, and is the host of database.url \
             right?",
        ),
        _ if error.to_string().starts_with("failed to lookup") => {
            Some("check the host in database.url")
        }
        _ => None,
    }
}

fn of_code(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" | "28000" => {
            "the user or the password of database.url is wrong, or pg_hba.conf does not let this \
             host in"
        }
        "3D000" => "create it with CREATE DATABASE, or correct the name in database.url",
        "42501" => {
            "grant the right to the role of database.url (docs/operations.md lists them); \
             migrations are for the owner of the schema"
        }
        "42P01" | "42703" | "42P07" => {
            "the schema is not that of this version: see `outrider migrate status`"
        }
        "53300" => {
            "lower database.max_connections and database.ledger_connections of the processes, or \
             raise the server's max_connections"
        }
        "53100" => "make room on the server's disk",
        "57P01" | "57P02" | "57P03" => "the server is starting or shutting down: try again",
        "25006" => {
            "this is a standby, or its database or role is read-only: database.url must lead to \
             the primary"
        }
        "55P03" => "the tables are in use: try again",
        "57014" => "raise database.statement_timeout",
        // The codes of SQLite.
        "14" | "1038" => "the directory of database.url must exist and be writable",
        "26" => "the file of database.url is not a SQLite database",
        "8" | "264" | "520" | "776" | "1032" => {
            "the file of database.url must be writable, and its directory too"
        }
        "5" | "261" | "517" => {
            "another process has the file: does `outrider serve` or `outrider dev` run on it?"
        }
        "13" => "make room on the disk",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_the_system_says_has_its_advice() {
        for (kind, expected) in [
            (ErrorKind::ConnectionRefused, Some("nothing listens")),
            (ErrorKind::TimedOut, Some("a firewall")),
            (ErrorKind::NotFound, Some("no such socket")),
            (ErrorKind::BrokenPipe, None),
        ] {
            let failure =
                Failure::of("connecting", &sqlx::Error::Io(io::Error::new(kind, "as it is")));
            assert_eq!(failure.kind, FailureKind::Unreachable);
            assert_eq!(failure.to_string(), "connecting: as it is");
            assert_eq!(
                failure.advice().map(|advice| advice.contains(expected.unwrap_or("?"))),
                expected.map(|_| true),
                "{kind}"
            );
        }
        let lookup =
            io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(
            Failure::of("x", &sqlx::Error::Io(lookup)).advice(),
            Some("check the host in database.url")
        );
    }

    #[test]
    fn codes_that_mean_that_nobody_is_there_are_told_from_refusals() {
        for (code, away) in
            [("57P03", true), ("53300", true), ("08006", true), ("42501", false), ("25006", false)]
        {
            assert_eq!(is_away(code), away, "{code}");
        }
    }
}
