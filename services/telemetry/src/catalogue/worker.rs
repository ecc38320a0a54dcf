//! The role that signs and sends.

use crate::metrics::{long_seconds, seconds, section};

section! {
    "worker" {
        /// Jobs in hand, from reading until their report is settled.
        JOBS: IntGauge("outrider_worker_jobs");
        /// Slots in use by jobs whose turn to be sent has come, up to `worker.max_in_flight`; one
        /// may take several.
        SLOTS_USED: IntGauge("outrider_worker_slots_used");
        /// Bytes of payloads in hand that did not travel with their jobs, up to
        /// `worker.payload_bytes`.
        PAYLOAD_BYTES: IntGauge("outrider_worker_payload_bytes");
        /// Bytes of answers of 1 KiB and more in reports that are not settled, up to
        /// `worker.unreported_bytes`.
        UNREPORTED_BYTES: IntGauge("outrider_worker_unreported_bytes");
        /// Answers that found no room there: their attempts are recorded without headers and body.
        ANSWERS_DROPPED: IntCounter("outrider_worker_answers_dropped_total");
        /// Jobs in hand that wait for their share, by what of (slots, payload-bytes). An endpoint
        /// that hangs lets its own jobs wait; when those of many endpoints do, more workers or
        /// slots help.
        WAITING: IntGaugeVec("outrider_worker_jobs_waiting", ["resource"]);
        /// Endpoints whose window is remembered.
        WINDOWS: IntGauge("outrider_worker_windows");
        /// Those of them whose window is smaller than that of a new endpoint: they did not answer
        /// in time.
        NARROW_WINDOWS: IntGauge("outrider_worker_narrow_windows");
        /// Requests to endpoints under way.
        REQUESTS_OPEN: IntGauge("outrider_worker_requests_open");
        /// Attempts, by outcome.
        ATTEMPTS: IntCounterVec("outrider_worker_attempts_total", ["outcome"]);
        /// Exchanges that exceeded a bound on what is read of an endpoint, by bound:
        /// interim-answers, head, upgrade, bytes, reads.
        EXCEEDED: IntCounterVec("outrider_worker_exchanges_exceeded_total", ["bound"]);
        /// Jobs that were not sent, by reason.
        HELD: IntCounterVec("outrider_worker_jobs_held_total", ["reason"]);
        /// Time that a job waited in the queue.
        QUEUE_SECONDS: Histogram("outrider_worker_queue_seconds", long_seconds);
        /// Time to open a connection to an endpoint, by the egress, with TLS where it has it.
        CONNECT_SECONDS: Histogram("outrider_worker_connect_seconds", seconds);
        /// Time from sending a request to the head of its answer.
        RESPONSE_SECONDS: Histogram("outrider_worker_response_seconds", seconds);
        /// Time of an attempt as a whole.
        ATTEMPT_SECONDS: Histogram("outrider_worker_attempt_seconds", seconds);
        /// Time from the moment at which the first attempt of a delivery was due (that is when its
        /// event was accepted, unless it was asked for later) to its begin.
        FIRST_ATTEMPT_SECONDS: Histogram("outrider_worker_first_attempt_seconds", long_seconds);
        /// Connections that requests were sent on: new, or used before (reused).
        CONNECTIONS: IntCounterVec("outrider_worker_connections_total", ["kind"]);
        /// Requests that were sent once more, since a connection that had been used before ended
        /// without a byte of an answer.
        RESENT: IntCounter("outrider_worker_requests_resent_total");
        /// Idle connections that are kept for the next request.
        IDLE_CONNECTIONS: IntGauge("outrider_worker_idle_connections");
    }
}
