//! The settings of dispatch, and the values that its process gives it.

use std::time::Duration;

use outrider_model::RetryPolicy;
use outrider_settings::{
    KIB, MIB, Positive, days, hours, listen_address, millis, minutes, or_zero, seconds, section,
};

section! {
    /// The role that commits, feeds and settles.
    pub struct Options in "dispatch" {
        /// Address and port for ingest, workers and the gateway, when they are in other processes.
        pub listen: String = "127.0.0.1:8082".into(), listen_address();
        /// Waits between the attempts of a delivery. When they are used up, the delivery has
        /// failed. Each is varied by up to a fifth. The default is the example schedule of Standard
        /// Webhooks with more attempts in the first three minutes.
        pub retry_schedule: Vec<Duration> = RetryPolicy::default().waits().to_vec();
        /// How long idempotency keys are kept.
        pub idempotency_lifetime: Duration = hours(24), minutes(1)..;
        /// Maximum number of commits of events in flight. A further one starts only when a quarter
        /// of `accept_batch` waits. If there are several, one is reserved for organizations that
        /// have no commit in flight.
        pub accept_lanes: usize = 4, 1..;
        /// Maximum number of events in one commit. An event counts once more for every 32 of its
        /// deliveries, and for every 16 KiB of its payload.
        pub accept_batch: usize = 256, 1..;
        /// Maximum number of publish requests that wait for a commit or are in one, divided into
        /// shares. Further ones are refused.
        pub accept_queue: usize = 32_768, 1..;
        /// Maximum number of bytes that wait for a commit, divided into shares: payloads, 1 KiB for
        /// each event, and for each delivery 1 KiB and the headers. Further requests are refused. A
        /// single request counts as an eighth of this limit at most.
        pub accept_queue_bytes: usize = 256 * MIB;
        /// Maximum number of bytes of jobs that wait to be put on the queue after their commit:
        /// payloads, headers and 1 KiB for each job. Divided into fair shares. Jobs that find no
        /// room are not refused: they wait in the database, where the feeder finds them.
        pub handoff_queue_bytes: usize = 128 * MIB;
        /// Maximum number of finished jobs that wait to be removed from the queue. Further ones
        /// wait for their lease to run out.
        pub finish_queue: usize = 65_536, 1..;
        /// Maximum number of commits of attempts in flight. A further one starts only when a
        /// quarter of `settle_batch` waits.
        pub settle_lanes: usize = 2, 1..;
        /// Maximum number of attempts in one commit.
        pub settle_batch: usize = 512, 1..;
        /// Maximum number of batches of reports that wait for a commit.
        pub settle_queue: usize = 256, 1..;
        /// Largest payload that travels through the queue, in bytes. Workers read larger ones from
        /// the database when they send them.
        pub inline_bytes: usize = 32 * KIB;
        /// Smallest window of an endpoint that does not answer in time: with each timeout it gets
        /// half as many jobs in the queue, down to this.
        pub least_window: u32 = 8, 1..;
        /// How long the window of an endpoint is remembered after its last report; up to twice as
        /// long.
        pub window_memory: Duration = minutes(10), Positive;
        /// Maximum number of endpoints whose windows are remembered.
        pub windows_kept: usize = 20_000, 1..;
        /// How often due deliveries are looked for when nothing else triggers it; less often when
        /// looking takes more than a tenth of the time.
        pub feed_period: Duration = millis(500), millis(10)..;
        /// Maximum number of deliveries put on the queue at once, up to 128 of one endpoint.
        pub feed_batch: u32 = 1_000, 1..;
        /// How long a delivery may be unsettled before the queue is asked for its job. A job that
        /// has waited for the queue for half of this time goes back to the database.
        pub check_after: Duration = seconds(15), seconds(1)..;
        /// How often the queue's identity is checked.
        pub epoch_period: Duration = seconds(1), millis(100)..;
        /// Maximum number of open tails, divided into shares. Further ones are refused.
        pub max_tails: usize = 1_000;
        /// Maximum number of bytes that tails have read from the database and not sent to their
        /// clients, divided into shares. A tail that finds no room reads no further until there is
        /// some.
        pub tail_buffer_bytes: usize = 64 * MIB, MIB..;
        /// Maximum number of queries of tails at once, divided into shares. Further ones wait for
        /// their turn.
        pub tail_readers: usize = 8, 1..;
        /// How long a tail goes without a message before it sends a heartbeat.
        pub tail_heartbeat: Duration = seconds(15), seconds(1)..=seconds(60);
        /// How often tails look for what other processes committed. They see commits of their own
        /// process at once.
        pub tail_poll: Duration = millis(200), millis(10)..;
        /// How far back a tail can be resumed. An older cursor fails with CURSOR_EXPIRED.
        pub tail_retention: Duration = days(7), hours(24)..;
        /// Minimum time that events, deliveries and attempts are kept. A day (UTC) is removed when
        /// all of it is older and nothing pending refers to it.
        pub retention: Duration = days(30), or_zero(hours(24).., "to keep everything");
        /// Minimum time that the feed of configuration changes is kept.
        pub change_retention: Duration = days(90), or_zero(hours(24).., "to keep everything");
        /// How often data past its retention is looked for, including payloads that a project keeps
        /// for a shorter time.
        pub sweep_period: Duration = minutes(10), millis(100)..;
        /// How often pending deliveries and the queue are measured, for the metrics.
        pub measure_period: Duration = seconds(10), millis(100)..;
        /// How often the ledger is audited: one step over new events, and one over all history.
        /// See docs/guarantees.md.
        pub audit_period: Duration = seconds(10), millis(100)..;
        /// How old an event is when it is audited first. It must be longer than a commit takes,
        /// counted from the event's arrival.
        pub audit_grace: Duration = seconds(60), seconds(1)..;
        /// Maximum number of rows of one table in one step of the audit.
        pub audit_batch: u32 = 2_000, 1..;
        /// Minimum time between two audits of all history.
        pub audit_repeat: Duration = hours(24);
    }
}

/// What the process gives dispatch besides its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Maximum size of one request of a client, in bytes. Default: 6 MiB.
    pub max_request_bytes: usize,
    /// Maximum size of one message of events from ingest in another process, in bytes. Default: 16
    /// MiB.
    pub max_intake_bytes: usize,
    /// Maximum size of one message of reports from a worker in another process, in bytes. Default:
    /// 4 MiB.
    pub max_reports_bytes: usize,
}

impl Default for Given {
    fn default() -> Self {
        Self { max_request_bytes: 6 * MIB, max_intake_bytes: 16 * MIB, max_reports_bytes: 4 * MIB }
    }
}
