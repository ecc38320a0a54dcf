//! The export of telemetry.

use crate::metrics::section;

section! {
    "telemetry" {
        /// Ended spans, by result: exported, dropped (the export queue was full) or failed (the
        /// collector did not accept them).
        SPANS: IntCounterVec("outrider_telemetry_spans_total", ["result"]);
    }
}
