//! What ingest takes in: its limits.

use std::time::Duration;

/// Limits on what is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// One payload, decoded, in bytes. Default 1 MiB.
    pub max_payload_bytes: usize,
    /// All payloads of one batch, in bytes. Default 4 MiB.
    pub max_batch_bytes: usize,
    /// One gRPC message, in bytes. Default 6 MiB.
    pub max_request_bytes: usize,
    /// A publish request is large if its payloads have more bytes than this together, and more than
    /// 16 KiB on average. Default 128 KiB.
    pub large_bytes: usize,
    /// Large requests that are validated and committed at once, by turns; further ones wait. What
    /// they take of the processors is not there for others, whose requests are small. Default 1.
    pub large_requests: usize,
    /// Large requests that wait for their turn, divided into shares; more are refused. Default
    /// 1,024.
    pub large_requests_waiting: usize,
    /// Steps that validating one payload by its schema may take; a million take a tenth to half a
    /// second. What takes more violates its schema. Default 1,000,000.
    pub validation_steps: u64,
    /// Validations that take more than a few milliseconds and run at once, divided into shares;
    /// further ones wait for their turn. Default 4.
    pub long_validations: usize,
    /// Memory for compiled schemas, in bytes, divided into shares; each counts as 4 KiB and 16
    /// times its text. Default 256 MiB.
    pub schema_cache_bytes: u64,
    /// Bounds of StreamEvents.
    pub stream: StreamOptions,
}

/// Limits on streams of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// Streams open at once in this process, divided into shares; more are refused. Default 1,000.
    pub max_streams: usize,
    /// Events of one stream that are read and not acknowledged. Default 4,096.
    pub window_events: u32,
    /// The same for what they hold (payload, headers, metadata), in bytes; one event may go beyond.
    /// Default 16 MiB.
    pub window_bytes: u64,
    /// The same of all streams of this process together, in bytes, divided into shares: streams of
    /// a caller whose share is used up are not read. Default 256 MiB.
    pub buffer_bytes: usize,
    /// Events handed to dispatch in one call. Default 512.
    pub batch_events: usize,
    /// Calls of one stream under way at once. Default 4.
    pub calls: usize,
    /// How long a call may take before its outcome counts as unknown. Default 30 s.
    pub call_timeout: Duration,
    /// How long a call that is refused as overload is repeated before the stream ends. Default 30
    /// s.
    pub overload_patience: Duration,
    /// How long the first message may take. Default 10 s.
    pub open_timeout: Duration,
    /// How long a stream may be without a message while nothing of it is under way. Default 5 min.
    pub idle_timeout: Duration,
    /// How long a stream may go on at shutdown, to acknowledge what was read. Default 5 s.
    pub drain: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            max_streams: 1_000,
            window_events: 4_096,
            window_bytes: 16 * 1024 * 1024,
            buffer_bytes: 256 * 1024 * 1024,
            batch_events: 512,
            calls: 4,
            call_timeout: Duration::from_secs(30),
            overload_patience: Duration::from_secs(30),
            open_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            drain: Duration::from_secs(5),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_payload_bytes: MIB,
            max_batch_bytes: 4 * MIB,
            max_request_bytes: 6 * MIB,
            large_bytes: 128 * 1024,
            large_requests: 1,
            large_requests_waiting: 1_024,
            validation_steps: 1_000_000,
            long_validations: 4,
            schema_cache_bytes: 256 * 1024 * 1024,
            stream: StreamOptions::default(),
        }
    }
}
