//! The process.

use crate::metrics::section;

section! {
    "process" {
        /// Always 1; its labels say what runs.
        BUILD_INFO: IntGaugeVec("outrider_build_info", ["version", "commit"]);
        /// When the process started, in seconds since 1970.
        START_TIME: Gauge("process_start_time_seconds");
        /// Time of the processor that the process used, in user and system mode.
        CPU_SECONDS: FloatCounter("process_cpu_seconds_total");
        /// Resident memory.
        RESIDENT_MEMORY: IntGauge("process_resident_memory_bytes");
        /// Open file descriptors.
        OPEN_FDS: IntGauge("process_open_fds");
        /// The most file descriptors that may be open.
        MAX_FDS: IntGauge("process_max_fds");
        /// Tasks of the runtime that are alive.
        TASKS: IntGauge("outrider_process_tasks");
    }
}
