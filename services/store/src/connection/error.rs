//! Turns errors of the database into what a caller may see. Details go to the log; parameters of
//! statements go nowhere.

use std::sync::{
    LazyLock,
    atomic::{AtomicBool, Ordering},
};

use outrider_model::{Error, Reason};
use outrider_telemetry::catalog::store::ERRORS;
use sea_orm::{DbErr, RuntimeErr, SqlErr, sqlx};
use tokio::sync::watch;

use super::{failure, pooler, turns};

/// Counts the failures that raise doubt whether the database does what it is asked. Global like the
/// metrics: a second store in the process merely probes once too often.
static DOUBTS: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// Whether a failure was of the kind that only shared sessions cause.
static SESSIONS_DOUBTED: AtomicBool = AtomicBool::new(false);

/// Notes that a statement failed for another reason than its data.
pub(crate) fn doubt(error: Option<&sqlx::Error>) {
    if error.is_some_and(pooler::is_of_sharing) {
        SESSIONS_DOUBTED.store(true, Ordering::Relaxed);
    }
    DOUBTS.send_modify(|count| *count += 1);
}

/// Whether a failure pointed at shared sessions since the last call.
pub(crate) fn take_doubt_of_sessions() -> bool {
    SESSIONS_DOUBTED.swap(false, Ordering::Relaxed)
}

/// A receiver of every doubt from now on.
pub(crate) fn doubts() -> watch::Receiver<u64> {
    DOUBTS.subscribe()
}

/// The error for anything unexpected: the outcome is unknown. A query that got no turn is no fault
/// and had no effect.
pub(crate) fn unavailable(error: DbErr) -> Error {
    if let Some(exhausted) = turns::exhausted(&error) {
        return exhausted.into();
    }
    let code = data_error(&error);
    ERRORS.with_label_values(&[if code.is_some() { "data" } else { "unavailable" }]).inc();
    if let Some(code) = code {
        tracing::warn!(code, "the database refuses data of a request");
        return Error::new(
            Reason::MalformedRequest,
            "the database refuses the data, for example a text with a NUL character",
        );
    }
    doubt(failure::sqlx_error(&error));
    let words = failure::message_of_orm(&error);
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

/// The same for a statement that bypasses sea-orm.
pub(crate) fn unavailable_sql(error: sqlx::Error) -> Error {
    unavailable(DbErr::Query(RuntimeErr::SqlxError(error.into())))
}

/// The error of an insert: a violated unique key means that the object exists. Anything else is
/// unexpected.
pub(crate) fn exists(what: &'static str) -> impl FnOnce(DbErr) -> Error {
    move |error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => already_exists(what),
        _ => unavailable(error),
    }
}

/// The error for a given id that is taken. A caller that does not reach the object gets the same
/// error as from any other call with that id.
pub(crate) fn taken(what: &'static str, reaches: bool) -> Error {
    if reaches { already_exists(what) } else { Error::not_found(what) }
}

fn already_exists(what: &'static str) -> Error {
    Error::new(Reason::AlreadyExists, format!("{what} with this id exists"))
}

/// The error for a stored row without a meaning: a fault of Outrider, or of whoever changed the
/// database by hand.
pub(crate) fn malformed_row(table: &'static str, column: &'static str) -> Error {
    tracing::error!(table, column, "a stored row is malformed");
    Error::internal("a stored row is malformed")
}

/// The SQLSTATE if it is of class 22 (data exception): the fault is in the request.
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
