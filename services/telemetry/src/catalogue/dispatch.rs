//! The role that commits, feeds and settles.

use crate::metrics::{seconds, section, sizes};

section! {
    "dispatch" {
        /// Time from the arrival of events from ingest to the answer: routing, waiting for a
        /// commit, and the commit.
        ACCEPT_SECONDS: Histogram("outrider_dispatch_accept_seconds", seconds);
        /// Events in one commit.
        COMMIT_EVENTS: Histogram("outrider_dispatch_commit_events", sizes);
        /// Time of one commit of events in the database.
        COMMIT_SECONDS: Histogram("outrider_dispatch_commit_seconds", seconds);
        /// Reports in one commit.
        SETTLE_REPORTS: Histogram("outrider_dispatch_settle_reports", sizes);
        /// Time of one commit of reports in the database.
        SETTLE_SECONDS: Histogram("outrider_dispatch_settle_seconds", seconds);
        /// Attempts that were settled, by outcome.
        ATTEMPTS: IntCounterVec("outrider_dispatch_attempts_total", ["outcome"]);
        /// Deliveries that ended by an attempt or a report, by status (delivered, failed,
        /// cancelled).
        ENDED: IntCounterVec("outrider_dispatch_deliveries_ended_total", ["status"]);
        /// Jobs offered to the queue, by what became of them: queued, present (its delivery has a
        /// place already), full (a window is full), wrong-epoch (the queue is another than was
        /// known), failed (the queue did not answer), late (it waited for the queue or the database
        /// for more than half of dispatch.check_after, and was not offered).
        JOBS: IntCounterVec("outrider_dispatch_jobs_total", ["result"]);
        /// Rounds of the feeder over endpoints with due deliveries.
        FEED_ROUNDS: IntCounter("outrider_dispatch_feed_rounds_total");
        /// Deliveries that the feeder marked as queued.
        FEED_CLAIMED: IntCounter("outrider_dispatch_feed_claimed_total");
        /// Deliveries that are queued again because the queue lacked them (lost) or had been
        /// emptied or replaced (epoch).
        REQUEUED: IntCounterVec("outrider_dispatch_requeued_total", ["cause"]);
        /// Endpoints whose window was full lately: their new deliveries wait in the database.
        CONGESTED: IntGauge("outrider_dispatch_congested_endpoints");
        /// Endpoints that get fewer jobs in the queue than they may have under way, because they
        /// did not answer in time.
        NARROW_WINDOWS: IntGauge("outrider_dispatch_narrow_windows");
        /// Whether jobs could be delivered through the queue when it was asked last: 1 or 0.
        QUEUE_AVAILABLE: IntGauge("outrider_dispatch_queue_available");
        /// Pending deliveries in the database, of all processes together, counted up to 100,000.
        PENDING: IntGauge("outrider_dispatch_pending_deliveries");
        /// Age of the oldest delivery that is due, of all processes together; deliveries to paused
        /// or deleted endpoints do not count. 0 when none is due. It grows while the database does
        /// not answer.
        OLDEST_DUE: Gauge("outrider_dispatch_oldest_due_age_seconds");
        /// Deliveries that were owed and are nowhere, as far as the audit of the ledger has got; of
        /// all processes together, 0 in those that leave the audit to another. It must be 0.
        UNACCOUNTED: IntGauge("outrider_dispatch_unaccounted_deliveries");
        /// Rows of the ledger that do not add up, by what is wrong (see docs/guarantees.md), up to
        /// 10,000; as above. All must be 0.
        DISCREPANCIES: IntGaugeVec("outrider_dispatch_ledger_discrepancies", ["kind"]);
        /// How far the audit of what is new is behind the present; 0 in a process that leaves it to
        /// another. dispatch.audit_grace and a period are usual.
        AUDIT_AGE: Gauge("outrider_dispatch_audit_age_seconds");
        /// Events audited, those audited again included.
        AUDITED_EVENTS: IntCounter("outrider_dispatch_audited_events_total");
        /// Time of one step of the audit in the database.
        AUDIT_SECONDS: Histogram("outrider_dispatch_audit_seconds", seconds);
        /// Sweeps for what is older than it is kept, by how they ended: done, blocked (a partition
        /// was in use; it goes at a later one), failed.
        SWEEPS: IntCounterVec("outrider_dispatch_sweeps_total", ["result"]);
        /// Partitions of a day that were dropped on PostgreSQL, by table (events, deliveries,
        /// attempts, idempotency_keys).
        PARTITIONS_DROPPED: IntCounterVec("outrider_dispatch_partitions_dropped_total", ["kind"]);
        /// Rows that were deleted since they are kept no longer, by table (replays, changes; on
        /// SQLite also events, deliveries, attempts, idempotency_keys).
        ROWS_DELETED: IntCounterVec("outrider_dispatch_rows_deleted_total", ["kind"]);
        /// Payloads erased, by cause: retention (the project's payload_retention) or request
        /// (ErasePayload).
        PAYLOADS_ERASED: IntCounterVec("outrider_dispatch_payloads_erased_total", ["cause"]);
        /// The midnight (UTC) at which the oldest day begins of which history is kept, in seconds
        /// since 1970; 0 when there is none.
        OLDEST_DAY: IntGauge("outrider_dispatch_oldest_day_timestamp_seconds");
        /// Days of history that are older than dispatch.retention and stay, since a delivery of
        /// them is pending.
        HELD_DAYS: IntGauge("outrider_dispatch_history_held");
    }
}
