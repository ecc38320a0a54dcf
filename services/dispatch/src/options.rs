//! How dispatch behaves: every bound and period of it.

use std::time::Duration;

use outrider_model::RetryPolicy;

/// How dispatch behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// When failed attempts are repeated. Default: the example schedule of Standard Webhooks with
    /// more attempts in the first three minutes.
    pub retry_policy: RetryPolicy,
    /// Commits of events under way at once; a further one starts only when a quarter of
    /// `accept_batch` waits. If there are several, one is kept for organisations of which no commit
    /// is under way. Default 4.
    pub accept_lanes: usize,
    /// Events in one commit; one counts once more for every 32 of its deliveries, and for every 16
    /// KiB of its payload. Default 256.
    pub accept_batch: usize,
    /// Publish calls that wait for a commit or are in one, divided into shares; more are refused.
    /// Default 32,768.
    pub accept_queue: usize,
    /// Bytes that wait for a commit, payloads and 1 KiB for each event and delivery, divided into
    /// shares; more are refused. Default 256 MiB.
    pub accept_queue_bytes: usize,
    /// Commits of attempts under way at once; a further one starts only when a quarter of
    /// `settle_batch` waits. Default 2.
    pub settle_lanes: usize,
    /// Reports in one commit. Default 512.
    pub settle_batch: usize,
    /// Batches of reports that wait for a commit. Default 256.
    pub settle_queue: usize,
    /// Bytes of jobs that wait to be put on the queue after their commit (payloads, headers and 1
    /// KiB for each), divided into fair shares; those that find no room go by the feeder. Default
    /// 128 MiB.
    pub handoff_queue_bytes: usize,
    /// Finished jobs that wait to be removed from the queue; those beyond wait for their lease.
    /// Default 65,536.
    pub finish_queue: usize,
    /// Payloads up to so many bytes travel in the job; larger ones are read by the worker. Default
    /// 32 KiB.
    pub inline_bytes: usize,
    /// An endpoint that does not answer in time gets half as many jobs in the queue with each
    /// timeout, down to this. At least 1. Default 8.
    pub least_window: u32,
    /// How long that is remembered of an endpoint of which nothing is heard; up to twice as long.
    /// Default 10 min.
    pub window_memory: Duration,
    /// Endpoints of which it is remembered. Default 20,000.
    pub windows_kept: usize,
    /// How often the feeder looks for due deliveries when nothing wakes it; less often when looking
    /// takes more than a tenth of the time. Default 500 ms.
    pub feed_period: Duration,
    /// Deliveries that the feeder puts on the queue at once, up to 128 of one endpoint. Default
    /// 1,000.
    pub feed_batch: u32,
    /// After so long unsettled in the queue a delivery is asked after; a job that has waited for
    /// half of it is not queued. Default 15 s.
    pub check_after: Duration,
    /// How often the queue's identity is checked. Default 1 s.
    pub epoch_period: Duration,
    /// How often what is pending is measured, for the metrics. Default 10 s.
    pub measure_period: Duration,
    /// How often the ledger is audited: a step over what is new, and one over all history. Default
    /// 10 s.
    pub audit_period: Duration,
    /// How old an event is when it is audited first; longer than a commit takes from an event's
    /// arrival on. Default 60 s.
    pub audit_grace: Duration,
    /// Rows of one table in one step of the audit. Default 2,000.
    pub audit_batch: u32,
    /// All history is audited anew after so long, at the earliest. Default 24 h.
    pub audit_repeat: Duration,
    /// How long idempotency keys are kept. Default 24 h.
    pub idempotency_lifetime: Duration,
    /// One request of a client, in bytes. Default 6 MiB.
    pub max_request_bytes: usize,
    /// One message of events from ingest in another process, in bytes. Default 16 MiB.
    pub max_intake_bytes: usize,
    /// One message of reports from a worker in another process, in bytes. Default 4 MiB.
    pub max_reports_bytes: usize,
    /// Tails open at once, divided into shares; more are refused. Default 1,000.
    pub max_tails: usize,
    /// Bytes that tails have read and not sent, divided into shares; a tail that finds no room
    /// reads no further. Default 64 MiB.
    pub tail_buffer_bytes: usize,
    /// Queries of tails at once, divided into shares; further ones wait for their turn. Default 8.
    pub tail_readers: usize,
    /// After so long without a message a tail sends a heartbeat. Default 15 s.
    pub tail_heartbeat: Duration,
    /// How often tails look for commits of other processes. Default 200 ms.
    pub tail_poll: Duration,
    /// How far back a tail may be resumed, at least. Default 7 days.
    pub tail_retention: Duration,
    /// How long events, deliveries and attempts are kept, at least: a day goes when all of it is
    /// older. Zero: for ever. Default 30 days.
    pub retention: Duration,
    /// How long the feed of changes of configuration is kept, at least. Zero: for ever. Default 90
    /// days.
    pub change_retention: Duration,
    /// How often what is older than it is kept is looked for. Default 10 min.
    pub sweep_period: Duration,
}

impl Default for Options {
    fn default() -> Self {
        const KIB: usize = 1024;
        Self {
            retry_policy: RetryPolicy::default(),
            accept_lanes: 4,
            accept_batch: 256,
            accept_queue: 32_768,
            accept_queue_bytes: 256 * KIB * KIB,
            settle_lanes: 2,
            settle_batch: 512,
            settle_queue: 256,
            handoff_queue_bytes: 128 * KIB * KIB,
            finish_queue: 65_536,
            inline_bytes: 32 * KIB,
            least_window: 8,
            window_memory: Duration::from_secs(600),
            windows_kept: 20_000,
            feed_period: Duration::from_millis(500),
            feed_batch: 1_000,
            check_after: Duration::from_secs(15),
            epoch_period: Duration::from_secs(1),
            measure_period: Duration::from_secs(10),
            audit_period: Duration::from_secs(10),
            audit_grace: Duration::from_secs(60),
            audit_batch: 2_000,
            audit_repeat: Duration::from_secs(24 * 3600),
            idempotency_lifetime: Duration::from_secs(24 * 3600),
            max_request_bytes: 6 * KIB * KIB,
            max_intake_bytes: 16 * KIB * KIB,
            max_reports_bytes: 4 * KIB * KIB,
            max_tails: 1_000,
            tail_buffer_bytes: 64 * KIB * KIB,
            tail_readers: 8,
            tail_heartbeat: Duration::from_secs(15),
            tail_poll: Duration::from_millis(200),
            tail_retention: Duration::from_secs(7 * 24 * 3600),
            retention: Duration::from_secs(30 * 24 * 3600),
            change_retention: Duration::from_secs(90 * 24 * 3600),
            sweep_period: Duration::from_secs(600),
        }
    }
}
