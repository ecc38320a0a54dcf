//! The section of the gateway.

use serde::{Deserialize, Serialize};

use super::{KIB, MIB};
use crate::config::Span;

section! {
    /// The public face.
    Gateway {
        /// Address and port of the one public listener: gRPC, gRPC-web and REST.
        listen: String = "127.0.0.1:8080".into(),
        /// A PEM file of the public certificate, then of those that lead to its authority; with it
        /// the public listener speaks TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. Empty for plain HTTP.
        tls_certificate_file: String = String::new(),
        /// A PEM file of its private key: PKCS#8, PKCS#1 or SEC1.
        tls_private_key_file: String = String::new(),
        /// How often these files are looked at, and read again when they changed; at SIGHUP at
        /// once. At least 100ms.
        tls_reload_interval: Span = Span::seconds(30),
        /// How long a TLS handshake may take.
        tls_handshake_timeout: Span = Span::seconds(10),
        /// Where ingest is when it is not in this process, as `http://HOST:PORT`, or `https://`
        /// with TLS between roles.
        ingest_url: String = "http://127.0.0.1:8081".into(),
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// Where admin is when it is not in this process.
        admin_url: String = "http://127.0.0.1:8083".into(),
        /// One request, decoded, in bytes; at most 512 MiB. All processes must agree.
        max_request_bytes: usize = 6 * MIB,
        /// Bodies of all requests under way and what is decoded of them together, in bytes, divided
        /// into shares; more are refused. A lone API key has a quarter, which must be more than one
        /// body.
        max_buffered_bytes: usize = 256 * MIB,
        /// What decoding one body may take in memory, in bytes; at least 1 MiB more than twice
        /// max_request_bytes. Besides, no body may take more than 8 times its size, or 24 MiB if
        /// that is more.
        max_decoded_bytes: usize = 64 * MIB,
        /// Larger bodies are decoded off the threads that serve connections, in bytes.
        decode_apart_bytes: usize = 64 * KIB,
        /// Such bodies that are decoded at once, divided into shares; further ones wait for their
        /// turn.
        max_decodings: usize = 4,
        /// Answers over 16 KiB and streams, as far as their clients have not taken them, together,
        /// in bytes, divided into shares. More requests with such answers are answered as
        /// unavailable; streams and uploads wait. A lone API key has a quarter, which must be more
        /// than the largest payload as base64. An answer of which nothing is taken for idle_timeout
        /// is given up.
        max_unsent_bytes: usize = 256 * MIB,
        /// From the first byte of a request to the last of its answer; a client may ask for less by
        /// `Request-Timeout` or `grpc-timeout`.
        request_timeout: Span = Span::seconds(30),
        /// Connections at once, those in their TLS handshake included. A further one takes the
        /// place of the oldest on which no request had a good API key; when all had one, it is
        /// closed as it comes.
        max_connections: usize = 10_000,
        /// How many of them only connections may have on which a request had a good API key; less
        /// than max_connections.
        reserved_connections: usize = 2_500,
        /// The head of a request, in bytes; at least 8192.
        max_header_bytes: usize = 16 * KIB,
        /// Header fields of an HTTP/1.1 request.
        max_headers: usize = 100,
        /// Path and query of a request, in bytes.
        max_uri_bytes: usize = 8 * KIB,
        /// From the first byte of a request's head, or from the begin of the connection, to the end
        /// of the head.
        header_read_timeout: Span = Span::seconds(10),
        /// Bytes a second that a body must bring at least, on average after 5 seconds; 0 for no
        /// bound but request_timeout.
        min_body_rate: usize = KIB,
        /// A connection without a request under way is closed after so long. More than 60s, which
        /// load balancers often wait: a connection should not be closed by us while one sends on
        /// it.
        idle_timeout: Span = Span::seconds(75),
        /// The time between HTTP/2 pings to a client.
        keep_alive_interval: Span = Span::seconds(30),
        /// How long a client may take to answer a ping.
        keep_alive_timeout: Span = Span::seconds(20),
        /// Requests under way at once on one HTTP/2 connection.
        max_concurrent_streams: u32 = 100,
        /// Requests of one HTTP/2 connection that its client reset before the server took them up,
        /// at once; with more it is closed.
        max_pending_resets: usize = 20,
        /// Streams of one HTTP/2 connection that the server reset since the client broke the rules;
        /// with more it is closed.
        max_error_resets: usize = 1_024,
        /// Requests of one connection that its client gave up before they were answered, beyond
        /// those that were answered; with more it is closed (rapid reset).
        max_abandoned_requests: usize = 100,
        /// In a process of its own: how long an answer of another role about an API key is used. A
        /// key that is revoked is refused after this time and one more second.
        key_lifetime: Span = Span::seconds(4),
        /// In a process of its own: valid API keys whose answers are remembered.
        max_valid_keys: u64 = 100_000,
        /// In a process of its own: invalid API keys whose answers are remembered.
        max_invalid_keys: u64 = 10_000,
        /// In a process of its own: questions to other roles under way at once about API keys that
        /// were valid, as many about those that were made within 5 minutes, and as many about
        /// others.
        key_questions: usize = 64,
        /// At shutdown: how long requests that began may take to end.
        drain: Span = Span::seconds(10),
        /// Origins whose pages may call the API from a browser, such as `https://app.example.com`;
        /// `*` for any. Cookies are never let in.
        cors_origins: Vec<String> = Vec::new(),
        /// Whether gRPC reflection tells the public services to anyone, without a key.
        reflection: bool = false,
        /// Uploads of newline-delimited JSON under way at once, divided into shares; more are
        /// refused.
        max_uploads: usize = 64,
        /// How long such an upload may go without a whole line, blank ones aside, while the server
        /// waits for nothing else; at most 60 s.
        upload_idle_timeout: Span = Span::seconds(60),
    }
}
