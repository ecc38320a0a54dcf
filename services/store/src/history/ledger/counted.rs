//! Counts errors of the ledger.

use outrider_telemetry::catalog::store::ERRORS;

use crate::ledger::LedgerError;

/// Returns the same error after counting it.
pub(super) fn counted(error: LedgerError) -> LedgerError {
    let kind = match &error {
        LedgerError::Data(_) => "data",
        LedgerError::Unavailable(_) => "unavailable",
    };
    ERRORS.with_label_values(&[kind]).inc();
    error
}
