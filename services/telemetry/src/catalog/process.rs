//! The process.

use crate::metrics::section;

section! {
    "process" {
        /// Always 1. The labels have the version and the commit.
        BUILD_INFO: IntGaugeVec("outrider_build_info", ["version", "commit"]);
        /// Start time of the process, in seconds since 1970.
        START_TIME: Gauge("process_start_time_seconds");
        /// Time at which the configuration, including the egress policy, was last read and valid,
        /// in seconds since 1970.
        CONFIGURATION_READ: IntGauge("outrider_configuration_read_timestamp_seconds");
        /// 1 if the configuration was invalid when it was last read, and the previous one stays in
        /// force; otherwise 0.
        CONFIGURATION_INVALID: IntGauge("outrider_configuration_invalid");
        /// CPU time of the process, in user and system mode.
        CPU_SECONDS: FloatCounter("process_cpu_seconds_total");
        /// Resident memory.
        RESIDENT_MEMORY: IntGauge("process_resident_memory_bytes");
        /// Open file descriptors.
        OPEN_FDS: IntGauge("process_open_fds");
        /// Maximum number of open file descriptors.
        MAX_FDS: IntGauge("process_max_fds");
        /// Live tasks of the async runtime.
        TASKS: IntGauge("outrider_process_tasks");
    }
}
