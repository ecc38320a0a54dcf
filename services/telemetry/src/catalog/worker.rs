//! The role that signs and sends.

use crate::metrics::{long_seconds, seconds, section};

section! {
    "worker" {
        /// Jobs in hand, from reading until their report is settled.
        JOBS: IntGauge("outrider_worker_jobs");
        /// Slots in use by jobs that are being sent, up to `worker.max_in_flight`. A job may take
        /// several.
        SLOTS_USED: IntGauge("outrider_worker_slots_used");
        /// Bytes of payloads in hand that were too large to travel with their jobs, up to
        /// `worker.payload_bytes`.
        PAYLOAD_BYTES: IntGauge("outrider_worker_payload_bytes");
        /// Bytes of responses of 1 KiB or more in reports that are not settled, up to
        /// `worker.unreported_bytes`.
        UNREPORTED_BYTES: IntGauge("outrider_worker_unreported_bytes");
        /// Responses that found no room within `worker.unreported_bytes`. Their attempts are
        /// recorded without headers and body.
        ANSWERS_DROPPED: IntCounter("outrider_worker_answers_dropped_total");
        /// Jobs in hand that wait for their share, by resource (slots, payload-bytes). Jobs of a
        /// hanging endpoint wait for that endpoint. If jobs of many endpoints wait, more workers or
        /// slots help.
        WAITING: IntGaugeVec("outrider_worker_jobs_waiting", ["resource"]);
        /// Endpoints whose windows are remembered.
        WINDOWS: IntGauge("outrider_worker_windows");
        /// Endpoints whose remembered window is smaller than that of a new endpoint, because they
        /// did not answer in time.
        NARROW_WINDOWS: IntGauge("outrider_worker_narrow_windows");
        /// Requests to endpoints in flight.
        REQUESTS_OPEN: IntGauge("outrider_worker_requests_open");
        /// Attempts, by outcome.
        ATTEMPTS: IntCounterVec("outrider_worker_attempts_total", ["outcome"]);
        /// Exchanges that exceeded a bound on what is read from an endpoint, by bound:
        /// interim-answers, head, upgrade, bytes, reads.
        EXCEEDED: IntCounterVec("outrider_worker_exchanges_exceeded_total", ["bound"]);
        /// Jobs that were not sent, by reason.
        HELD: IntCounterVec("outrider_worker_jobs_held_total", ["reason"]);
        /// Time that a job waited in the queue.
        QUEUE_SECONDS: Histogram("outrider_worker_queue_seconds", long_seconds);
        /// Time to open a connection to an endpoint through the egress, including TLS.
        CONNECT_SECONDS: Histogram("outrider_worker_connect_seconds", seconds);
        /// Time from sending a request to the head of its response.
        RESPONSE_SECONDS: Histogram("outrider_worker_response_seconds", seconds);
        /// Duration of an attempt.
        ATTEMPT_SECONDS: Histogram("outrider_worker_attempt_seconds", seconds);
        /// Time from when the first attempt of a delivery was due to when it began. It is due when
        /// the event is accepted, or at deliver_at.
        FIRST_ATTEMPT_SECONDS: Histogram("outrider_worker_first_attempt_seconds", long_seconds);
        /// Connections on which requests were sent: new, or reused.
        CONNECTIONS: IntCounterVec("outrider_worker_connections_total", ["kind"]);
        /// Requests sent once more, because a reused connection ended before the first byte of a
        /// response.
        RESENT: IntCounter("outrider_worker_requests_resent_total");
        /// Idle connections kept for the next request.
        IDLE_CONNECTIONS: IntGauge("outrider_worker_idle_connections");
    }
}
