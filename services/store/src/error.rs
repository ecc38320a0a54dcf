//! From the database's errors to what a caller may see: details go to the log, never parameters of
//! statements.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use outrider_model::{Error, Reason};
use outrider_telemetry::catalogue::store::ERRORS;
use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};
use tokio::sync::watch;

use crate::{failure, pooler, questions};

/// Counts the failures that make it doubtful whether the database does what it is asked. It is the
/// process's, as the metrics are: another store in it only looks once too often.
static DOUBTS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Whether a failure was such as sessions have that are shared with others.
static SESSIONS_DOUBTED: AtomicBool = AtomicBool::new(false);

/// A statement failed, and not by its data.
pub(crate) fn doubt(error: Option<&sqlx::Error>) {
    if error.is_some_and(pooler::is_of_sharing) {
        SESSIONS_DOUBTED.store(true, Ordering::Relaxed);
    }
    DOUBTS.send_modify(|count| *count += 1);
}

/// Whether sessions were doubted since this was asked last.
pub(crate) fn take_doubt_of_sessions() -> bool {
    SESSIONS_DOUBTED.swap(false, Ordering::Relaxed)
}

/// Tells of each doubt from now on.
pub(crate) fn doubts() -> watch::Receiver<u64> {
    DOUBTS.subscribe()
}

/// Anything unexpected: the outcome is unknown. A question that had no turn is no fault, and had no
/// effect.
pub(crate) fn unavailable(error: DbErr) -> Error {
    if let Some(exhausted) = questions::exhausted(&error) {
        return exhausted.into();
    }
    let code = data_error(&error);
    ERRORS.with_label_values(&[if code.is_some() { "data" } else { "unavailable" }]).inc();
    if let Some(code) = code {
        tracing::warn!(code, "the database refuses data of a request");
        return Error::new(
            Reason::MalformedRequest,
            "the database refuses the data, as it does a text with a NUL character",
        );
    }
    doubt(failure::sqlx_error(&error));
    let words = failure::told_orm(&error);
    if failure::sqlx_error(&error)
        .and_then(failure::code)
        .is_some_and(|code| !failure::is_away(&code))
    {
        tracing::warn!(error = words, "the database refuses a statement");
        return Error::unavailable("the database refuses a statement of the server");
    }
    tracing::warn!(error = words, "the database does not answer");
    Error::unavailable("the database does not answer")
}

/// The same for what is asked past sea-orm.
pub(crate) fn unavailable_sql(error: sqlx::Error) -> Error {
    unavailable(DbErr::Query(RuntimeErr::SqlxError(error.into())))
}

/// A unique key stands against it: the object exists. Anything else is unexpected.
pub(crate) fn exists(what: &'static str) -> impl FnOnce(DbErr) -> Error {
    move |error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => already_exists(what),
        _ => unavailable(error),
    }
}

/// The error for a given id that is taken. A caller who does not reach the object gets the same
/// error as by any other call with that id.
pub(crate) fn taken(what: &'static str, reaches: bool) -> Error {
    if reaches { already_exists(what) } else { Error::not_found(what) }
}

/// The given id is taken.
fn already_exists(what: &'static str) -> Error {
    Error::new(Reason::AlreadyExists, format!("{what} with this id exists"))
}

/// A stored row does not mean anything: a fault of ours or of who changed the database.
pub(crate) fn malformed_row(table: &'static str, column: &'static str) -> Error {
    tracing::error!(table, column, "a stored row is malformed");
    Error::internal("a stored row is malformed")
}

/// The SQLSTATE when it is of class 22 (data exception): the fault is in the request.
fn data_error(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return None;
    };
    let sqlx::Error::Database(error) = error.as_ref() else { return None };
    error
        .code()
        .filter(|code| code.len() == 5 && code.starts_with("22"))
        .map(|code| code.into_owned())
}
