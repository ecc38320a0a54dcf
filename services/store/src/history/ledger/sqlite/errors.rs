//! Errors of SQLite as errors of the ledger.

use crate::{history::ledger::counted::counted, ledger::LedgerError};

/// SQLite's codes for a fault of the row: TOOBIG, CONSTRAINT, MISMATCH. The low byte is the code
/// without its extension.
const DATA_CODES: [i32; 3] = [18, 19, 20];

pub(super) fn failed(error: sqlx::Error) -> LedgerError {
    counted(classify(error))
}

fn classify(error: sqlx::Error) -> LedgerError {
    if let sqlx::Error::Database(database) = &error {
        let code = database.code().and_then(|code| code.parse::<i32>().ok());
        if code.is_some_and(|code| DATA_CODES.contains(&(code & 0xff))) {
            return LedgerError::Data(database.message().to_owned());
        }
    }
    match error {
        sqlx::Error::Encode(source) => LedgerError::Data(source.to_string()),
        other => LedgerError::Unavailable(other.to_string()),
    }
}
