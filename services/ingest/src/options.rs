//! The settings of ingest, and what its process gives it.

use std::time::Duration;

use outrider_model::limits;
use outrider_settings::{
    Invalid, KIB, MIB, because, listen_address, millis, minutes, seconds, section,
};

/// The largest payload that the databases take as one value, with room for the rest of the row.
const MOST_PAYLOAD: usize = 256 * MIB;

section! {
    /// The role that accepts events from clients.
    pub struct Options in "ingest" {
        /// Address and port for the gateway, when it is in another process.
        pub listen: String = "127.0.0.1:8081".into(), listen_address();
        /// URL of dispatch when it is not in this process.
        pub dispatch_url: String = "http://127.0.0.1:8082".into();
        /// Maximum size of one payload, decoded, in bytes. All processes must agree.
        pub max_payload_bytes: usize = MIB, because(1..=MOST_PAYLOAD, "no database keeps more");
        /// Maximum size of all payloads of one batch, in bytes; at most
        /// `gateway.max_request_bytes`. All processes must agree.
        pub max_batch_bytes: usize = 4 * MIB;
        /// A publish request is large if its payloads have more bytes than this together, and more
        /// than 16 KiB on average.
        pub large_bytes: usize = 128 * KIB;
        /// Maximum number of large publish requests that are validated and committed at once, by
        /// turns of organizations, projects and keys. Further ones wait. What they take of the
        /// processors is not available to small ones.
        pub large_requests: usize = 1, 1..;
        /// Maximum number of large publish requests that wait for their turn, divided into shares.
        /// Further ones are refused.
        pub large_requests_waiting: usize = 1_024;
        /// Maximum number of steps of validating one payload by its schema; a million take a tenth
        /// to half a second. A payload that takes more violates its schema.
        pub validation_steps: u64 = 1_000_000, 1..;
        /// Maximum number of validations that take more than a few milliseconds and run at once,
        /// divided into shares. Further ones wait for their turn.
        pub long_validations: usize = 4, 1..;
        /// Memory for compiled schemas, in bytes, divided into shares. Each counts as 4 KiB and 16
        /// times its text. Schemas beyond the share of their project are compiled each time.
        pub schema_cache_bytes: u64 = 256 * MIB as u64;
        /// StreamEvents: maximum number of streams open at once in one process, divided into
        /// shares. Further ones are refused. Up to 1 MiB of a stream that stands still waits unread
        /// in its connection.
        pub max_streams: usize = 1_000, 1..;
        /// StreamEvents: maximum number of unacknowledged events of one stream. Beyond it, the
        /// server reads no further.
        pub stream_window_events: u32 = 4_096, 1..;
        /// StreamEvents: the same limit for what the events hold (payload, headers, metadata), in
        /// bytes. One event may go beyond it.
        pub stream_window_bytes: u64 = 16 * MIB as u64, 1..;
        /// StreamEvents: the same limit for all streams of one process together, in bytes, divided
        /// into shares. Streams of a caller whose share is used up are not read.
        pub stream_buffer_bytes: usize = 256 * MIB, 1..;
        /// StreamEvents: maximum number of events handed to dispatch in one call.
        pub stream_batch_events: usize = 512, 1..=limits::BATCH_EVENTS;
        /// StreamEvents: maximum number of calls of one stream in flight.
        pub stream_calls: usize = 4, 1..;
        /// StreamEvents: how long a call may take before its outcome counts as unknown.
        pub stream_call_timeout: Duration = seconds(30), millis(100)..;
        /// StreamEvents: how long a call that is refused as overload is repeated before the stream
        /// ends.
        pub stream_overload_patience: Duration = seconds(30);
        /// StreamEvents: how long the first message may take.
        pub stream_open_timeout: Duration = seconds(10), millis(100)..;
        /// StreamEvents: how long a stream may go without a message while none of its events is in
        /// flight.
        pub stream_idle_timeout: Duration = minutes(5), seconds(1)..;
        /// StreamEvents: at shutdown, how long a stream may go on to acknowledge what was read.
        pub stream_drain: Duration = seconds(5);
    }
    with rules;
}

fn rules(options: &Options) -> Result<(), Invalid> {
    Invalid::unless(
        options.max_payload_bytes <= options.max_batch_bytes,
        "ingest.max_payload_bytes",
        "must not be above ingest.max_batch_bytes",
    )
}

/// What the process gives ingest besides its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Maximum size of one gRPC message, in bytes. Default: 6 MiB.
    pub max_request_bytes: usize,
}

impl Default for Given {
    fn default() -> Self {
        Self { max_request_bytes: 6 * MIB }
    }
}
