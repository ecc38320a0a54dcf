//! The window of jobs.

use crate::metrics::{seconds, section};

section! {
    "queue" {
        /// Jobs that wait or are held by workers, by shard. Measured by dispatch.
        JOBS: IntGaugeVec("outrider_queue_jobs", ["shard"]);
        /// Duration of a Redis command or script, including the wait for a connection, excluding
        /// the wait for jobs.
        COMMAND_SECONDS: HistogramVec("outrider_queue_command_seconds", ["command"], seconds);
        /// Failed Redis commands and scripts.
        COMMAND_ERRORS: IntCounterVec("outrider_queue_command_errors_total", ["command"]);
        /// 1 if Redis refuses a command, the keys, or auth (the user and password), by the last
        /// check; otherwise 0. Nothing is delivered while a needed one ("yes") is refused. Without
        /// the others, Outrider does with less, and the log says what.
        REFUSED: IntGaugeVec("outrider_queue_refused", ["command", "needed"]);
    }
}
