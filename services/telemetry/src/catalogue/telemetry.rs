//! Telemetry itself.

use crate::metrics::section;

section! {
    "telemetry" {
        /// Spans that ended: exported, dropped (the queue was full) or failed (the collector did
        /// not take them).
        SPANS: IntCounterVec("outrider_telemetry_spans_total", ["result"]);
    }
}
