//! The process.

use crate::metrics::section;

section! {
    "process" {
        /// Always 1; its labels say what runs.
        BUILD_INFO: IntGaugeVec("outrider_build_info", ["version", "commit"]);
        /// When the process started, in seconds since 1970.
        START_TIME: Gauge("process_start_time_seconds");
        /// When the configuration, and with it the policy of destinations, was last read and was
        /// valid, in seconds since 1970.
        CONFIGURATION_READ: IntGauge("outrider_configuration_read_timestamp_seconds");
        /// Whether the configuration was not valid when it was last read (0 or 1): what was read
        /// before stays in force.
        CONFIGURATION_INVALID: IntGauge("outrider_configuration_invalid");
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
