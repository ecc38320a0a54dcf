//! The settings of the gateway, and what its process gives it.

use std::time::Duration;

use outrider_rpc::KeyCacheOptions;
use outrider_settings::{
    Invalid, KIB, MIB, because, listen_address, millis, seconds, section, together,
};

use crate::cors;

/// The largest request that the databases take as one statement, with room for the rest of it.
const MOST_REQUEST: usize = 512 * MIB;

section! {
    /// The public interface.
    pub struct Options in "gateway" {
        /// Address and port of the one public listener: gRPC, gRPC-web and REST.
        pub listen: String = "127.0.0.1:8080".into(), listen_address();
        /// A PEM file of the public certificate, followed by those that lead to its authority.
        /// With it the public listener uses TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. Empty for plain
        /// HTTP.
        pub tls_certificate_file: String = String::new();
        /// A PEM file of its private key: PKCS#8, PKCS#1 or SEC1.
        pub tls_private_key_file: String = String::new();
        /// How often these files are checked. They are read again when they changed, and at SIGHUP
        /// at once.
        pub tls_reload_interval: Duration = seconds(30), millis(100)..;
        /// How long a TLS handshake may take.
        pub tls_handshake_timeout: Duration = seconds(10), millis(100)..;
        /// URL of ingest when it is not in this process, as `http://HOST:PORT`, or `https://` with
        /// TLS between roles.
        pub ingest_url: String = "http://127.0.0.1:8081".into();
        /// URL of dispatch when it is not in this process.
        pub dispatch_url: String = "http://127.0.0.1:8082".into();
        /// URL of admin when it is not in this process.
        pub admin_url: String = "http://127.0.0.1:8083".into();
        /// Maximum size of one request, decoded, in bytes. All processes must agree. The default
        /// lets a batch with 4 MiB of payload fit even as JSON.
        pub max_request_bytes: usize = 6 * MIB,
            because(..=MOST_REQUEST, "no database takes more");
        /// Maximum number of bytes of the bodies of all requests in flight, and of what is decoded
        /// of them, divided into shares. Further requests are refused. A lone API key has a
        /// quarter, which must be more than one body.
        pub max_buffered_bytes: usize = 256 * MIB;
        /// Maximum memory that decoding one body may take, in bytes. It must be at least 1 MiB
        /// more than twice `max_request_bytes`. In addition, no body may take more than 8 times
        /// its size, or 24 MiB if that is more.
        pub max_decoded_bytes: usize = 64 * MIB;
        /// Size in bytes above which a body is decoded off the threads that serve connections.
        pub decode_apart_bytes: usize = 64 * KIB;
        /// Maximum number of such bodies that are decoded at once, divided into shares. Further
        /// ones wait for their turn.
        pub max_decodings: usize = 4, 1..;
        /// Maximum number of bytes of answers that their clients have not read yet, divided into
        /// shares: of all answers over 16 KiB and of all streams. Beyond it, requests with such
        /// answers fail as unavailable, and streams and uploads wait. A lone API key has a
        /// quarter, which must be more than the largest payload as base64. An answer that its
        /// client does not read for `idle_timeout` is dropped.
        pub max_unsent_bytes: usize = 256 * MIB;
        /// From the first byte of a request to the last byte of its answer. A client may ask for
        /// less with `Request-Timeout` or `grpc-timeout`.
        pub request_timeout: Duration = seconds(30), millis(100)..;
        /// Maximum number of connections, including those in their TLS handshake. A further one
        /// replaces the oldest on which no request had a good API key, or an idle one beyond its
        /// caller's share. If there is none, it is closed at once.
        pub max_connections: usize = 10_000, 1..;
        /// How many of them are reserved for connections on which a request had a good API key,
        /// within the share of that key. It must be less than `max_connections`.
        pub reserved_connections: usize = 2_500;
        /// Maximum size of the head of a request, in bytes.
        pub max_header_bytes: usize = 16 * KIB, 8 * KIB..=MIB;
        /// Maximum number of header fields of an HTTP/1.1 request.
        pub max_headers: usize = 100, 1..=1_000;
        /// Maximum length of the path and query of a request, in bytes.
        pub max_uri_bytes: usize = 8 * KIB, 256..=65_534;
        /// From the first byte of a request's head, or from the start of the connection, to the end
        /// of the head.
        pub header_read_timeout: Duration = seconds(10), millis(100)..;
        /// Minimum rate of a body in bytes per second, on average after `body_grace`. 0 for no
        /// limit but `request_timeout`. Client streams have no limit.
        pub min_body_rate: usize = KIB;
        /// How long a body may be slower than `min_body_rate`.
        pub body_grace: Duration = seconds(5);
        /// How long a connection without a request in flight stays open; in HTTP/2 even if it
        /// answers pings. It should be more than 60s, for which load balancers often keep a
        /// connection: the gateway should not close it while a request is being sent.
        pub idle_timeout: Duration = seconds(75), millis(100)..;
        /// Time between HTTP/2 pings to a client. It must be less than `idle_timeout`, so that
        /// quiet streams are not cut.
        pub keep_alive_interval: Duration = seconds(30), millis(100)..;
        /// How long a client may take to answer a ping.
        pub keep_alive_timeout: Duration = seconds(20), millis(100)..;
        /// Maximum number of requests in flight on one HTTP/2 connection.
        pub max_concurrent_streams: u32 = 100, 1..;
        /// Maximum number of requests of one HTTP/2 connection that its client reset before the
        /// server took them up. With more, the connection is closed.
        pub max_pending_resets: usize = 20, 1..;
        /// Maximum number of streams of one HTTP/2 connection that the server reset because the
        /// client broke the rules. With more, the connection is closed.
        pub max_error_resets: usize = 1_024, 1..;
        /// Maximum number of requests of one connection that its client gave up before they were
        /// answered, in excess of those that were answered. With more, the connection is closed
        /// (rapid reset).
        pub max_abandoned_requests: usize = 100, 1..;
        /// How much of a body that is too large is read and dropped before the connection closes,
        /// in bytes, so that a client that writes before it reads sees the answer.
        pub linger_bytes: usize = 8 * MIB;
        /// For how long such a body is read.
        pub linger: Duration = seconds(1);
        /// Without ingest, dispatch or admin in the process: how long another role's answer about
        /// an API key is used. A revoked key is refused after this time and one more second.
        pub key_lifetime: Duration = KeyCacheOptions::default().lifetime,
            millis(100)..=seconds(60);
        /// In such a process: maximum number of valid API keys whose answers are remembered.
        pub max_valid_keys: u64 = KeyCacheOptions::default().valid, 1..;
        /// In such a process: maximum number of invalid API keys whose answers are remembered.
        pub max_invalid_keys: u64 = KeyCacheOptions::default().invalid, 1..;
        /// In such a process: maximum number of calls to other roles in flight about API keys that
        /// were valid before, as many about keys created within the last 5 minutes, and as many
        /// about others.
        pub key_questions: usize = KeyCacheOptions::default().questions, 1..;
        /// At shutdown: how long requests in flight may take to end.
        pub drain: Duration = seconds(10);
        /// Origins whose pages may call the API from a browser, such as `https://app.example.com`;
        /// `*` for any. Cookies are never accepted.
        pub cors_origins: Vec<String> = Vec::new();
        /// Whether gRPC reflection describes the public services to anyone, without a key.
        pub reflection: bool = false;
        /// Maximum number of uploads of newline-delimited JSON in flight, divided into shares.
        /// Further ones are refused.
        pub max_uploads: usize = 64, 1..;
        /// How long an upload may go without a whole line, blank ones aside, while the gateway
        /// waits for nothing else. On HTTP/1.1, more than `idle_timeout` has no effect when no byte
        /// arrives either.
        pub upload_idle_timeout: Duration = seconds(60), seconds(1)..=seconds(60);
        /// Maximum number of calls of one upload in flight.
        pub upload_calls: usize = 4, 1..;
        /// Size of the lines of one call, in bytes. A longer line is sent alone. If
        /// `ingest.max_batch_bytes` is less, it applies.
        pub upload_batch_bytes: usize = MIB, 1..;
        /// Maximum size of the results of one upload that its client has not read yet, in bytes.
        /// Beyond it, no more lines are read.
        pub upload_results_bytes: usize = 4 * MIB, 1..;
    }
    with rules;
}

impl Options {
    /// How answers about API keys are remembered.
    #[must_use]
    pub fn key_cache(&self) -> KeyCacheOptions {
        KeyCacheOptions {
            lifetime: self.key_lifetime,
            valid: self.max_valid_keys,
            invalid: self.max_invalid_keys,
            questions: self.key_questions,
        }
    }
}

fn rules(options: &Options) -> Result<(), Invalid> {
    together(&[
        ("gateway.tls_certificate_file", &options.tls_certificate_file),
        ("gateway.tls_private_key_file", &options.tls_private_key_file),
    ])?;
    Invalid::unless(
        options.reserved_connections < options.max_connections,
        "gateway.reserved_connections",
        "must be less than gateway.max_connections",
    )?;
    Invalid::unless(
        options.keep_alive_interval < options.idle_timeout,
        "gateway.keep_alive_interval",
        "must be below gateway.idle_timeout, so that quiet streams are not cut",
    )?;
    // Strictly: a body and its decoded form have one share.
    Invalid::unless(
        options.max_request_bytes < options.max_buffered_bytes / 4,
        "gateway.max_buffered_bytes",
        "must be more than four times gateway.max_request_bytes",
    )?;
    Invalid::unless(
        options.max_decoded_bytes >= 2 * options.max_request_bytes + MIB,
        "gateway.max_decoded_bytes",
        "must be at least 1 MiB more than twice gateway.max_request_bytes",
    )?;
    cors::layer(&options.cors_origins)
        .map(drop)
        .map_err(|error| Invalid::new("gateway.cors_origins", error.to_string()))
}

/// What the process gives a gateway besides its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Maximum size of an answer of a role, and of a message of a stream that is turned into JSON,
    /// in bytes. Default: 32 MiB.
    pub max_answer_bytes: usize,
    /// What `/version` and the OpenAPI document say. Default: the version of this crate.
    pub version: &'static str,
    /// The commit of the build, if it is known. Default: OUTRIDER_COMMIT in the environment of the
    /// build.
    pub commit: Option<&'static str>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            max_answer_bytes: 32 * MIB,
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("OUTRIDER_COMMIT").filter(|commit| !commit.is_empty()),
        }
    }
}
