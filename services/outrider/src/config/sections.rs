//! The sections of the configuration with their defaults.

use serde::{Deserialize, Serialize};

use super::Span;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Writes a section: its doc comments become the reference, its defaults stand beside its fields.
macro_rules! section {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {$($(#[doc = $field_doc])* pub $field: $type,)*}

        impl Default for $name {
            fn default() -> Self {
                Self {$($field: $default,)*}
            }
        }

        impl $name {
            /// What each key means, for the reference.
            #[cfg(test)]
            pub const DOCS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), concat!($($field_doc,)*)),)*];
        }
    };
}

section! {
    /// Where events, deliveries and configuration are kept.
    Database {
        /// `sqlite://PATH` (one process) or `postgres://USER:PASSWORD@HOST:PORT/NAME` (PostgreSQL 15 or later).
        url: String = "sqlite://outrider-data/outrider.db".into(),
        /// Connections of one process to PostgreSQL, at most.
        max_connections: u32 = 16,
        /// How long a request waits for a connection.
        acquire_timeout: Span = Span::seconds(3),
        /// How long a statement may run on PostgreSQL.
        statement_timeout: Span = Span::seconds(10),
    }
}

section! {
    /// Where jobs wait that are ready to be sent. It may be lost at any time: the database knows everything.
    Queue {
        /// `embedded` (memory of the one process) or `redis://HOST:PORT/DB` (Redis 6 or later, Valkey); several nodes of a cluster
        /// separated by commas.
        url: String = "embedded".into(),
        /// Whether the Redis at the address is a cluster.
        cluster: bool = false,
        /// What every key in Redis begins with.
        prefix: String = "outrider".into(),
        /// Streams of jobs. More than one spreads over the nodes of a cluster; all processes must agree.
        shards: u32 = 1,
        /// Connections of one process to Redis, at most.
        pool_size: u32 = 8,
        /// How long one command may take.
        command_timeout: Span = Span::seconds(2),
        /// How long a worker holds a job without a sign of life before another takes it over; more than 30 s, the longest timeout of
        /// an endpoint.
        lease: Span = Span::seconds(45),
        /// Jobs of one project in the window.
        window_per_project: u32 = 10_000,
        /// Jobs in the window.
        window_total: u32 = 50_000,
    }
}

section! {
    /// What encrypts secrets in the database.
    Secrets {
        /// `ID:BASE64` of 32 random bytes, then former keys after commas. Better kept in a file.
        master_key: Hidden = Hidden::default(),
        /// A file that holds the same, read when master_key is empty.
        master_key_file: String = "outrider-data/master.key".into(),
    }
}

section! {
    /// How roles in different processes know each other.
    Internal {
        /// What they present to each other: 32 to 512 visible characters, the same in all processes. Required where a listener between
        /// roles is not on loopback. Better kept in a file.
        token: Hidden = Hidden::default(),
        /// A file that holds the same, read when token is empty; empty for none.
        token_file: String = String::new(),
    }
}

section! {
    /// What is logged.
    Log {
        /// `text` or `json`.
        format: String = "text".into(),
        /// A filter such as `info` or `info,outrider_worker=debug`.
        level: String = "info".into(),
    }
}

section! {
    /// The listener for operators: `/healthz` and `/readyz`.
    Operations {
        /// Address and port; empty for none.
        listen: String = "127.0.0.1:9090".into(),
    }
}

section! {
    /// The public face.
    Gateway {
        /// Address and port of the one public listener: gRPC, gRPC-web and REST.
        listen: String = "127.0.0.1:8080".into(),
        /// Where ingest is when it is not in this process, as `http://HOST:PORT`.
        ingest_url: String = "http://127.0.0.1:8081".into(),
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// Where admin is when it is not in this process.
        admin_url: String = "http://127.0.0.1:8083".into(),
        /// One request, decoded, in bytes.
        max_request_bytes: usize = 6 * MIB,
        /// From the first byte of a request to the last of its answer; a client may ask for less by `Request-Timeout` or `grpc-timeout`.
        request_timeout: Span = Span::seconds(30),
        /// Connections at once.
        max_connections: usize = 10_000,
        /// At shutdown: how long requests that began may take to end.
        drain: Span = Span::seconds(10),
        /// Origins whose pages may call the API from a browser, such as `https://app.example.com`; `*` for any. Cookies are never let in.
        cors_origins: Vec<String> = Vec::new(),
        /// Whether gRPC reflection tells the public services to anyone, without a key.
        reflection: bool = false,
    }
}

section! {
    /// The role that takes events in.
    Ingest {
        /// Address and port for the gateway, when it is in another process.
        listen: String = "127.0.0.1:8081".into(),
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// One payload, decoded, in bytes.
        max_payload_bytes: usize = MIB,
        /// All payloads of one batch, in bytes.
        max_batch_bytes: usize = 4 * MIB,
        /// Steps that validating one payload by its schema may take; a million take a tenth to half a second. A payload that takes more
        /// violates its schema.
        validation_steps: u64 = 1_000_000,
        /// Validations that take more than a few milliseconds and run at once; further ones wait.
        long_validations: usize = 4,
        /// Memory for compiled schemas, in bytes; each counts as 16 times its text.
        schema_cache_bytes: u64 = 64 * MIB as u64,
    }
}

section! {
    /// The role that commits, feeds and settles.
    Dispatch {
        /// Address and port for ingest, workers and the gateway, when they are in other processes.
        listen: String = "127.0.0.1:8082".into(),
        /// Waits between the attempts of a delivery; when they are used up it has failed. Each is varied by up to a fifth. The default
        /// is the example schedule of Standard Webhooks.
        retry_schedule: Vec<Span> = outrider_model::RetryPolicy::default().waits().iter().copied().map(Span).collect(),
        /// How long idempotency keys are kept.
        idempotency_lifetime: Span = Span::seconds(24 * 3600),
        /// Commits of events under way at once.
        accept_lanes: usize = 4,
        /// Events in one commit.
        accept_batch: usize = 256,
        /// Publish requests that wait for a commit; more are refused as overloaded.
        accept_queue: usize = 8192,
        /// Payload bytes that wait for a commit; more are refused as overloaded.
        accept_queue_bytes: usize = 256 * MIB,
        /// Commits of attempts under way at once.
        settle_lanes: usize = 2,
        /// Attempts in one commit.
        settle_batch: usize = 512,
        /// Payloads up to so many bytes travel through the queue; larger ones are read from the database when they are sent.
        inline_bytes: usize = 32 * KIB,
        /// How often due deliveries are looked for when nothing else prompts it.
        feed_period: Span = Span::millis(500),
        /// Deliveries put on the queue at once.
        feed_batch: u32 = 1_000,
        /// After so long unsettled a delivery is asked after in the queue.
        check_after: Span = Span::seconds(15),
    }
}

section! {
    /// The role that manages projects, keys, endpoints, subscriptions and event types.
    Admin {
        /// Address and port for the gateway, when it is in another process.
        listen: String = "127.0.0.1:8083".into(),
    }
}

section! {
    /// The role that signs and sends.
    Worker {
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// Where the egress proxy is when it is not in this process, as `HOST:PORT`.
        egress_address: String = "127.0.0.1:8084".into(),
        /// Requests under way at once.
        max_in_flight: usize = 2_048,
        /// Jobs taken from the queue at once.
        read_batch: usize = 256,
        /// The part of an answer's body that is kept, in bytes.
        response_kept_bytes: usize = 16 * KIB,
        /// At shutdown: how long requests that began may take to end.
        drain: Span = Span::seconds(30),
        /// A PEM file of certificates to trust besides the public ones; empty for none.
        extra_roots_file: String = String::new(),
    }
}

section! {
    /// The role that opens connections to the outside.
    Egress {
        /// Address and port of the proxy for workers in other processes.
        listen: String = "127.0.0.1:8084".into(),
        /// For development only: permits loopback addresses, which lets customers reach this machine's own services.
        allow_loopback: bool = false,
        /// Connections at once.
        max_tunnels: usize = 10_000,
        /// How long a name may take to resolve.
        dns_timeout: Span = Span::seconds(5),
        /// How long a connection may take.
        connect_timeout: Span = Span::seconds(10),
        /// The address from which connections are made; empty to let the system choose.
        source_address: String = String::new(),
    }
}

/// A secret in configuration: never shown.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"…\"" })
    }
}
