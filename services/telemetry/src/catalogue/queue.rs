//! The window of jobs.

use crate::metrics::{seconds, section};

section! {
    "queue" {
        /// Jobs that wait or are held by workers, by shard; measured by dispatch.
        JOBS: IntGaugeVec("outrider_queue_jobs", ["shard"]);
        /// Time of a command or script of Redis, with the wait for a connection. Waiting for jobs
        /// is not in it.
        COMMAND_SECONDS: HistogramVec("outrider_queue_command_seconds", ["command"], seconds);
        /// Commands and scripts of Redis that failed.
        COMMAND_ERRORS: IntCounterVec("outrider_queue_command_errors_total", ["command"]);
        /// Whether Redis refuses a command, or the keys or auth (the user and password), as it was
        /// asked last: 1 or 0. Nothing is delivered without what is needed ("yes"); without the
        /// rest something is lost that the log tells.
        REFUSED: IntGaugeVec("outrider_queue_refused", ["command", "needed"]);
    }
}
