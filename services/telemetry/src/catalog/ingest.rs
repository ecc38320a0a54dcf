//! The role that accepts events.

use crate::metrics::{section, sizes};

section! {
    "ingest" {
        /// Accepted events: committed now (new), or committed before under the same idempotency key
        /// (duplicate).
        ACCEPTED: IntCounterVec("outrider_ingest_events_accepted_total", ["result"]);
        /// Refused events, by reason (docs/errors.md).
        REFUSED: IntCounterVec("outrider_ingest_events_refused_total", ["reason"]);
        /// Number of events in one publish call.
        BATCH: Histogram("outrider_ingest_batch_events", sizes);
        /// Bytes of payloads handed to dispatch.
        PAYLOAD_BYTES: IntCounter("outrider_ingest_payload_bytes_total");
    }
}
