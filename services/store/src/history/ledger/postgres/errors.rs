//! Errors of PostgreSQL as errors of the ledger.

use crate::{
    connection::{error::doubt, failure},
    history::ledger::counted::counted,
    ledger::LedgerError,
};

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        failed(error)
    }
}

/// Data exceptions, violated constraints and index entries over the limit are the row's fault. A
/// missing partition is reported as a violated check (23514), but is Outrider's fault.
pub(super) fn failed(error: sqlx::Error) -> LedgerError {
    let kind = classify(&error);
    if matches!(kind, LedgerError::Unavailable(_)) {
        doubt(Some(&error));
    }
    counted(kind)
}

fn classify(error: &sqlx::Error) -> LedgerError {
    match error {
        sqlx::Error::Encode(source) => LedgerError::Data(source.to_string()),
        sqlx::Error::Database(database) => match database.code().as_deref() {
            Some(code)
                if code != "23514"
                    && ["22", "23", "54"].iter().any(|class| code.starts_with(class)) =>
            {
                LedgerError::Data(database.message().to_owned())
            }
            _ => LedgerError::Unavailable(failure::message(error)),
        },
        _ => LedgerError::Unavailable(failure::message(error)),
    }
}
