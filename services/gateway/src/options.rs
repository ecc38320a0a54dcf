//! Settings of the gateway.

use std::time::Duration;

use crate::cors::{self, InvalidOrigin};

/// Bounds of the public face.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The largest body of a request, in bytes. Default 6 MiB, so that a batch with 4 MiB of
    /// payload fits even as JSON.
    pub max_request_bytes: usize,
    /// The largest answer of a role, and the largest message of a stream that is turned into JSON,
    /// in bytes. Default 32 MiB.
    pub max_answer_bytes: usize,
    /// Bytes of bodies that are read but not answered, and of what is decoded of them, of all
    /// requests together, divided into shares; beyond that requests are refused. Default 256 MiB.
    pub max_buffered_bytes: usize,
    /// What decoding one body may take in memory, in bytes, however large the body is. Default 64
    /// MiB.
    pub max_decoded_bytes: usize,
    /// A larger body is decoded off the runtime's threads, in bytes. Default 64 KiB.
    pub decode_apart_bytes: usize,
    /// Such bodies that are decoded at once, divided into shares; further ones wait for their turn.
    /// Default 4.
    pub max_decodings: usize,
    /// Bytes of answers that their clients have not taken yet, of all answers over 16 KiB and all
    /// streams together, divided into shares; beyond that requests are answered as unavailable, and
    /// streams and uploads wait. Default 256 MiB.
    pub max_unsent_bytes: usize,
    /// The head of a request, in bytes. Default 16 KiB; less than 8 KiB counts as 8 KiB.
    pub max_header_bytes: usize,
    /// Header fields of an HTTP/1.1 request. Default 100.
    pub max_headers: usize,
    /// Path and query of a request, in bytes. Default 8 KiB.
    pub max_uri_bytes: usize,
    /// From the first byte of a request's head (or from the connection's begin) to its end. Default
    /// 10 s.
    pub header_read_timeout: Duration,
    /// From the head of a request to the head of its answer, reading the body included; a client
    /// may ask for less. Default 30 s.
    pub request_timeout: Duration,
    /// Bytes a second that a body brings at least, on average once `body_grace` is over; 0 for no
    /// such bound. Default 1 KiB. Streams of a client have none.
    pub min_body_rate: usize,
    /// How long a body may be slower. Default 5 s.
    pub body_grace: Duration,
    /// A connection without a request for so long is closed, in HTTP/2 also when it answers pings;
    /// an answer of which its client takes nothing for so long is given up. Default 75 s.
    pub idle_timeout: Duration,
    /// The time between HTTP/2 pings. Default 30 s.
    pub keep_alive_interval: Duration,
    /// How long the answer to a ping may take. Default 20 s.
    pub keep_alive_timeout: Duration,
    /// Requests under way at once on one HTTP/2 connection. Default 100.
    pub max_concurrent_streams: u32,
    /// Requests of one HTTP/2 connection that its client reset before they were taken up, at once;
    /// with more it is closed. Default 20.
    pub max_pending_resets: usize,
    /// Streams of one HTTP/2 connection that we reset since the client broke the rules, in its
    /// life; with more it is closed. Default 1024.
    pub max_error_resets: usize,
    /// Requests of one connection that its client gave up before they were answered, beyond those
    /// that were answered; with more it is closed. Default 100.
    pub max_abandoned_requests: usize,
    /// Connections at once. A further one takes the place of the oldest on which no request had a
    /// good API key, or of an idle one beyond its caller's share; when there is none, it is closed
    /// as it comes. Default 10,000.
    pub max_connections: usize,
    /// How many of them only connections may have on which a request had a good API key, within the
    /// share of that key. Default 2,500.
    pub reserved_connections: usize,
    /// How much of a body that is too large is read and dropped before the connection closes, so
    /// that a client that writes before it reads sees the answer, in bytes. Default 8 MiB.
    pub linger_bytes: usize,
    /// For how long at most. Default 1 s.
    pub linger: Duration,
    /// How long requests may take to end at shutdown. Default 10 s.
    pub drain: Duration,
    /// Origins whose pages may call the API from a browser, such as `https://app.example.com`; `*`
    /// for any. Default none.
    pub cors_origins: Vec<String>,
    /// Whether gRPC reflection tells the public services to anyone. Default false.
    pub reflection: bool,
    /// Uploads of lines under way at once, divided into shares; more are refused. Default 64.
    pub max_uploads: usize,
    /// How long an upload may go without a whole line that is not blank, while the gateway waits
    /// for nothing else. Default 60 s; longer than `idle_timeout` has no effect on HTTP/1.1 when no
    /// byte comes either.
    pub upload_idle_timeout: Duration,
    /// Calls of one upload under way at once. Default 4.
    pub upload_calls: usize,
    /// The lines of one call, in bytes; a longer line goes alone. Default 1 MiB.
    pub upload_batch_bytes: usize,
    /// Results of one upload that wait for its client, in bytes; then it is read no further.
    /// Default 4 MiB.
    pub upload_results_bytes: usize,
    /// What `/version` and the OpenAPI document say. Default: the version of this crate.
    pub version: &'static str,
    /// The commit of the build, if it is known. Default: OUTRIDER_COMMIT in the environment of the
    /// build.
    pub commit: Option<&'static str>,
}

impl Options {
    /// Refuses what cannot work, with the option's name.
    pub fn check(&self) -> Result<(), InvalidOrigin> {
        cors::layer(&self.cors_origins).map(drop)
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Default for Options {
    fn default() -> Self {
        Self {
            max_request_bytes: 6 * MIB,
            max_answer_bytes: 32 * MIB,
            max_buffered_bytes: 256 * MIB,
            max_decoded_bytes: 64 * MIB,
            decode_apart_bytes: 64 * KIB,
            max_decodings: 4,
            max_unsent_bytes: 256 * MIB,
            max_header_bytes: 16 * KIB,
            max_headers: 100,
            max_uri_bytes: 8 * KIB,
            header_read_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            min_body_rate: KIB,
            body_grace: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            max_concurrent_streams: 100,
            max_pending_resets: 20,
            max_error_resets: 1_024,
            max_abandoned_requests: 100,
            max_connections: 10_000,
            reserved_connections: 2_500,
            linger_bytes: 8 * MIB,
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(10),
            cors_origins: Vec::new(),
            reflection: false,
            max_uploads: 64,
            upload_idle_timeout: Duration::from_secs(60),
            upload_calls: 4,
            upload_batch_bytes: MIB,
            upload_results_bytes: 4 * MIB,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("OUTRIDER_COMMIT").filter(|commit| !commit.is_empty()),
        }
    }
}
