//! The role that commits, feeds and settles.

use crate::metrics::{seconds, section, sizes};

section! {
    "dispatch" {
        /// Time from the arrival of events from ingest to the response: routing, waiting for a
        /// commit, and the commit.
        ACCEPT_SECONDS: Histogram("outrider_dispatch_accept_seconds", seconds);
        /// Number of events in one commit.
        COMMIT_EVENTS: Histogram("outrider_dispatch_commit_events", sizes);
        /// Duration of one commit of events in the database.
        COMMIT_SECONDS: Histogram("outrider_dispatch_commit_seconds", seconds);
        /// Number of reports in one commit.
        SETTLE_REPORTS: Histogram("outrider_dispatch_settle_reports", sizes);
        /// Duration of one commit of reports in the database.
        SETTLE_SECONDS: Histogram("outrider_dispatch_settle_seconds", seconds);
        /// Settled attempts, by outcome.
        ATTEMPTS: IntCounterVec("outrider_dispatch_attempts_total", ["outcome"]);
        /// Deliveries ended by an attempt or a report, by status (delivered, failed, cancelled).
        ENDED: IntCounterVec("outrider_dispatch_deliveries_ended_total", ["status"]);
        /// Jobs offered to the queue, by result: queued, present (the delivery already has a job
        /// there), full (a window is full), wrong-epoch (the queue was emptied or replaced), failed
        /// (the queue did not answer), late (the job waited longer than half of
        /// dispatch.check_after, and was not offered).
        JOBS: IntCounterVec("outrider_dispatch_jobs_total", ["result"]);
        /// Rounds of the feeder over endpoints with due deliveries.
        FEED_ROUNDS: IntCounter("outrider_dispatch_feed_rounds_total");
        /// Deliveries marked as queued by the feeder.
        FEED_CLAIMED: IntCounter("outrider_dispatch_feed_claimed_total");
        /// Deliveries queued again, by reason: the queue did not have their job (lost), or was
        /// emptied or replaced (epoch).
        REQUEUED: IntCounterVec("outrider_dispatch_requeued_total", ["cause"]);
        /// Endpoints whose window was full recently. Their new deliveries wait in the database.
        CONGESTED: IntGauge("outrider_dispatch_congested_endpoints");
        /// Endpoints with fewer jobs in the queue than their max_in_flight, because they did not
        /// answer in time.
        NARROW_WINDOWS: IntGauge("outrider_dispatch_narrow_windows");
        /// 1 if jobs can be delivered through the queue, by the last check; otherwise 0.
        QUEUE_AVAILABLE: IntGauge("outrider_dispatch_queue_available");
        /// Pending deliveries in the database, for all processes together. Counted up to 100,000.
        PENDING: IntGauge("outrider_dispatch_pending_deliveries");
        /// Age of the oldest due delivery, for all processes together. Deliveries to paused or
        /// deleted endpoints do not count. 0 if none is due. Grows while the database does not
        /// answer.
        OLDEST_DUE: Gauge("outrider_dispatch_oldest_due_age_seconds");
        /// Deliveries that must exist and do not, as far as the audit of the ledger has got. For
        /// all processes together; 0 in processes that leave the audit to another. Must be 0.
        UNACCOUNTED: IntGauge("outrider_dispatch_unaccounted_deliveries");
        /// Rows of the ledger that do not add up, by kind (see docs/guarantees.md), up to 10,000.
        /// For all processes together; 0 in processes that leave the audit to another. Must be 0.
        DISCREPANCIES: IntGaugeVec("outrider_dispatch_ledger_discrepancies", ["kind"]);
        /// How far the audit of new events is behind the present. Usually dispatch.audit_grace and
        /// one period. 0 in a process that leaves the audit to another.
        AUDIT_AGE: Gauge("outrider_dispatch_audit_age_seconds");
        /// Audited events, including those audited again.
        AUDITED_EVENTS: IntCounter("outrider_dispatch_audited_events_total");
        /// Duration of one step of the audit in the database.
        AUDIT_SECONDS: Histogram("outrider_dispatch_audit_seconds", seconds);
        /// Sweeps for data past its retention, by result: done, blocked (a partition was in use,
        /// and is dropped by a later sweep), failed.
        SWEEPS: IntCounterVec("outrider_dispatch_sweeps_total", ["result"]);
        /// Daily partitions dropped on PostgreSQL, by table (events, deliveries, attempts,
        /// idempotency_keys).
        PARTITIONS_DROPPED: IntCounterVec("outrider_dispatch_partitions_dropped_total", ["kind"]);
        /// Rows deleted because their retention ended, by table (replays, changes; on SQLite also
        /// events, deliveries, attempts, idempotency_keys).
        ROWS_DELETED: IntCounterVec("outrider_dispatch_rows_deleted_total", ["kind"]);
        /// Erased payloads, by cause: retention (the project's payload_retention) or request
        /// (ErasePayload).
        PAYLOADS_ERASED: IntCounterVec("outrider_dispatch_payloads_erased_total", ["cause"]);
        /// Start of the oldest day (UTC) with history, in seconds since 1970. 0 if there is none.
        OLDEST_DAY: IntGauge("outrider_dispatch_oldest_day_timestamp_seconds");
        /// Days of history older than dispatch.retention that are kept because one of their
        /// deliveries is pending.
        HELD_DAYS: IntGauge("outrider_dispatch_history_held");
    }
}
