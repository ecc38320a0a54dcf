//! The role that takes events in.

use crate::metrics::{section, sizes};

section! {
    "ingest" {
        /// Events that were committed (new) or had been before, under the same idempotency key
        /// (duplicate).
        ACCEPTED: IntCounterVec("outrider_ingest_events_accepted_total", ["result"]);
        /// Events that were refused, by the reason in docs/errors.md.
        REFUSED: IntCounterVec("outrider_ingest_events_refused_total", ["reason"]);
        /// Events of one publish call.
        BATCH: Histogram("outrider_ingest_batch_events", sizes);
        /// Bytes of the payloads that were handed to dispatch.
        PAYLOAD_BYTES: IntCounter("outrider_ingest_payload_bytes_total");
    }
}
