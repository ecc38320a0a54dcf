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

mod gateway;
mod sending;

pub use self::{
    gateway::Gateway,
    sending::{Egress, Worker},
};

section! {
    /// Where events, deliveries and configuration are kept.
    Database {
        /// `sqlite://PATH` (one process) or `postgres://USER:PASSWORD@HOST:PORT/NAME` (PostgreSQL
        /// 15 or later); with TLS append `?sslmode=verify-full`, and `&sslrootcert=FILE` for an
        /// authority of your own, which is trusted beside the public ones. libpq's pairs
        /// (`host=HOST dbname=NAME`) and several hosts (`HOST1,HOST2`) are taken too:
        /// operations.md.
        url: String = "sqlite://outrider-data/outrider.db".into(),
        /// Connections of one process for configuration and questions, at most; on SQLite, for all
        /// that is read. Two are left to the process itself; callers have the others in turns,
        /// divided into shares. At least 4.
        max_connections: u32 = 10,
        /// With PostgreSQL: connections of one process for events and deliveries, at most, beside
        /// those of `max_connections`.
        ledger_connections: u32 = 8,
        /// How long a request waits for its turn to have a connection, and then for the connection.
        /// At least 100ms.
        acquire_timeout: Span = Span::seconds(3),
        /// With PostgreSQL: how long a statement may run. At least 100ms.
        statement_timeout: Span = Span::seconds(10),
    }
}

section! {
    /// Where jobs wait that are ready to be sent. It may be lost at any time: the database knows
    /// everything.
    Queue {
        /// `embedded` (memory of the one process) or `redis://HOST:PORT/DB` (Redis 6 or later,
        /// Valkey), with TLS `rediss://HOST:PORT/DB`; several nodes of a cluster separated by
        /// commas.
        url: String = "embedded".into(),
        /// With Redis: whether that at the address is a cluster.
        cluster: bool = false,
        /// With Redis: what every key there begins with.
        prefix: String = "outrider".into(),
        /// With Redis: streams of jobs. More than one spreads over the nodes of a cluster; all
        /// processes must agree.
        shards: u32 = 1,
        /// With Redis: connections of one process, at most.
        pool_size: u32 = 8,
        /// With `rediss://`: a PEM file of the authorities that are trusted instead of the public
        /// ones; empty for those.
        tls_ca_file: String = String::new(),
        /// With `rediss://`: a PEM file of the certificate that is presented to Redis; empty for
        /// none.
        tls_certificate_file: String = String::new(),
        /// A PEM file of its private key.
        tls_private_key_file: String = String::new(),
        /// With Redis: how long one command may take.
        command_timeout: Span = Span::seconds(2),
        /// How long a worker holds a job without a sign of life before another takes it over; more
        /// than 30 s, the longest timeout of an endpoint.
        lease: Span = Span::seconds(45),
        /// The size of the window of jobs, waiting or held by workers, in units: one for each job,
        /// and one more for each 4 KiB of its payload and headers. It is divided into fair shares:
        /// alone, an organisation has half of it, each of its projects a quarter, each endpoint an
        /// eighth. At least 8; all processes must agree.
        window: u32 = 32_768,
    }
}

impl Queue {
    /// How many jobs all shards hold together, at most.
    pub fn jobs(&self) -> usize {
        (self.window as usize).saturating_mul(self.shards.max(1) as usize)
    }
}

section! {
    /// What encrypts secrets in the database.
    Secrets {
        /// `ID:BASE64` of 32 random bytes, then former keys after commas; `ID:lost` is a former key
        /// that is lost. Better kept in a file.
        master_key: Hidden = Hidden::default(),
        /// A file that holds the same, read when master_key is empty.
        master_key_file: String = "outrider-data/master.key".into(),
    }
}

section! {
    /// How roles in different processes know each other.
    Internal {
        /// What they present to each other: 32 to 512 visible characters, the same in all
        /// processes. This or TLS is required where a listener between roles is not on loopback.
        /// Better kept in a file (`token_file`).
        token: Hidden = Hidden::default(),
        /// A PEM file of this process's certificate, then of those that lead to the authority. With
        /// it every listener between roles (ingest, dispatch, admin, egress) speaks TLS and serves
        /// only who presents a certificate of the same authority, and this process presents its
        /// own; URLs of roles must begin with `https://` then. Empty for no TLS.
        tls_certificate_file: String = String::new(),
        /// A PEM file of its private key: PKCS#8, PKCS#1 or SEC1.
        tls_private_key_file: String = String::new(),
        /// A PEM file of the authorities whose certificates are trusted between roles, and no
        /// others.
        tls_ca_file: String = String::new(),
        /// How often these files are looked at, and read again when they changed; at SIGHUP at
        /// once. At least 100ms.
        tls_reload_interval: Span = Span::seconds(30),
    }
}

section! {
    /// What is logged.
    Log {
        /// `text` or `json`.
        format: String = "text".into(),
        /// A filter such as `info` or `info,outrider_worker=debug`. Of the HTTP/2 library only
        /// errors are logged, unless the filter names it (`h2=warn`).
        level: String = "info".into(),
    }
}

section! {
    /// Where spans go, and whether traces go on to endpoints. See docs/telemetry.md.
    Telemetry {
        /// The collector of spans, OTLP over gRPC, as `http://HOST:PORT` or `https://HOST:PORT`;
        /// empty for none.
        otlp_endpoint: String = String::new(),
        /// How long one export may take, connecting included.
        otlp_timeout: Span = Span::seconds(10),
        /// The share of traces begun by Outrider that are recorded, 0 to 1. Traces begun by clients
        /// are recorded as their flag says.
        sample_ratio: f64 = 1.0,
        /// The `service.name` of the spans' resource.
        service_name: String = "outrider".into(),
        /// Further attributes of the resource, such as `deployment.environment.name=production`.
        resource_attributes: Vec<String> = Vec::new(),
        /// Whether endpoints are sent the headers `traceparent` and `tracestate` of events that
        /// have a trace.
        propagate: bool = true,
        /// Ended spans that wait to be exported; further ones are dropped and counted.
        export_queue: usize = 8_192,
        /// Spans in one export.
        export_batch: usize = 512,
        /// How long a span waits for others to be exported with it.
        export_period: Span = Span::seconds(1),
    }
}

section! {
    /// The listener for operators: `/healthz`, `/readyz` and `/metrics`.
    Operations {
        /// Address and port; empty for none.
        listen: String = "127.0.0.1:9090".into(),
    }
}

section! {
    /// The role that takes events in.
    Ingest {
        /// Address and port for the gateway, when it is in another process.
        listen: String = "127.0.0.1:8081".into(),
        /// Where dispatch is when it is not in this process.
        dispatch_url: String = "http://127.0.0.1:8082".into(),
        /// One payload, decoded, in bytes; at most 256 MiB. All processes must agree.
        max_payload_bytes: usize = MIB,
        /// All payloads of one batch, in bytes; at most gateway.max_request_bytes. All processes
        /// must agree.
        max_batch_bytes: usize = 4 * MIB,
        /// A publish request is large if its payloads have more bytes than this together, and more
        /// than 16 KiB on average.
        large_bytes: usize = 128 * KIB,
        /// Large publish requests that are validated and committed at once, by turns of
        /// organisations, projects and keys; further ones wait. What they take of the processors is
        /// not there for small ones. At least 1.
        large_requests: usize = 1,
        /// Large publish requests that wait for their turn, divided into shares; more are refused.
        large_requests_waiting: usize = 1_024,
        /// Steps that validating one payload by its schema may take; a million take a tenth to half
        /// a second. A payload that takes more violates its schema.
        validation_steps: u64 = 1_000_000,
        /// Validations that take more than a few milliseconds and run at once, divided into shares;
        /// further ones wait for their turn.
        long_validations: usize = 4,
        /// Memory for compiled schemas, in bytes, divided into shares; each counts as 4 KiB and 16
        /// times its text. Those beyond the share of their project are compiled each time.
        schema_cache_bytes: u64 = 256 * MIB as u64,
        /// StreamEvents: streams open at once in one process, divided into shares; more are
        /// refused. Of one that stands still up to 1 MiB waits unread in its connection.
        max_streams: usize = 1_000,
        /// StreamEvents: events of one stream that may be unacknowledged; the server reads no
        /// further.
        stream_window_events: u32 = 4_096,
        /// StreamEvents: the same for what the events hold, in bytes.
        stream_window_bytes: u64 = 16 * MIB as u64,
        /// StreamEvents: the same of all streams of one process together, in bytes, divided into
        /// shares.
        stream_buffer_bytes: usize = 256 * MIB,
        /// StreamEvents: how long a stream may be open without a message.
        stream_idle_timeout: Span = Span::seconds(300),
    }
}

section! {
    /// The role that commits, feeds and settles.
    Dispatch {
        /// Address and port for ingest, workers and the gateway, when they are in other processes.
        listen: String = "127.0.0.1:8082".into(),
        /// Waits between the attempts of a delivery; when they are used up it has failed. Each is
        /// varied by up to a fifth. The default is the example schedule of Standard Webhooks with
        /// more attempts in the first three minutes.
        retry_schedule: Vec<Span> = outrider_model::RetryPolicy::default().waits().iter().copied().map(Span).collect(),
        /// How long idempotency keys are kept. At least 1m.
        idempotency_lifetime: Span = Span::seconds(24 * 3600),
        /// Commits of events under way at once. A further one starts only when a quarter of
        /// `accept_batch` waits. If there are several, one is kept for organisations of which no
        /// commit is under way. At least 1.
        accept_lanes: usize = 4,
        /// Events in one commit. One counts once more for every 32 of its deliveries, and for every
        /// 16 KiB of its payload.
        accept_batch: usize = 256,
        /// Publish requests that wait for a commit or are in one, divided into shares; more are
        /// refused.
        accept_queue: usize = 32_768,
        /// Bytes that wait for a commit, divided into shares: payloads, 1 KiB for each event, and
        /// for each delivery 1 KiB and the headers; more are refused. A single request is counted
        /// with an eighth of it at most.
        accept_queue_bytes: usize = 256 * MIB,
        /// Bytes of jobs that wait to be put on the queue after their commit: payloads, headers and
        /// 1 KiB for each. Divided into fair shares. Jobs that find no room are not refused: they
        /// wait in the database.
        handoff_queue_bytes: usize = 128 * MIB,
        /// Commits of attempts under way at once. A further one starts only when a quarter of
        /// `settle_batch` waits. At least 1.
        settle_lanes: usize = 2,
        /// Attempts in one commit.
        settle_batch: usize = 512,
        /// Payloads up to so many bytes travel through the queue; larger ones are read from the
        /// database when they are sent.
        inline_bytes: usize = 32 * KIB,
        /// How often due deliveries are looked for when nothing else prompts it; less often when
        /// looking takes more than a tenth of the time.
        feed_period: Span = Span::millis(500),
        /// Deliveries put on the queue at once, up to 128 of one endpoint.
        feed_batch: u32 = 1_000,
        /// After so long unsettled a delivery is asked after in the queue; at least 1s. Half of it
        /// is how long a job may wait for the queue before it goes back to the database.
        check_after: Span = Span::seconds(15),
        /// Tails open at once, divided into shares; more are refused.
        max_tails: usize = 1_000,
        /// Bytes that tails have read from the database and not sent to their clients, divided into
        /// shares. A tail that finds no room reads no further until there is some.
        tail_buffer_bytes: usize = 64 * MIB,
        /// Queries of tails at once, divided into shares; further ones wait for their turn.
        tail_readers: usize = 8,
        /// After so long without a message a tail sends a heartbeat; 1s to 60s.
        tail_heartbeat: Span = Span::seconds(15),
        /// How often tails look for what other processes committed. What this one commits they see
        /// at once.
        tail_poll: Span = Span::millis(200),
        /// How far back a tail may be resumed; at least 24h. Longer ago: CURSOR_EXPIRED.
        tail_retention: Span = Span::seconds(7 * 24 * 3600),
        /// How long events, deliveries and attempts are kept, at least: at least 24h, or 0s for
        /// ever. A day (UTC) goes when all of it is older and nothing pending refers to it.
        retention: Span = Span::seconds(30 * 24 * 3600),
        /// How long the feed of changes of configuration is kept, at least: at least 24h, or 0s for
        /// ever.
        change_retention: Span = Span::seconds(90 * 24 * 3600),
        /// How often what is older than it is kept is looked for, payloads that a project keeps no
        /// longer included; at least 100ms.
        sweep_period: Span = Span::seconds(600),
        /// How often pending deliveries and the queue are measured, for the metrics.
        measure_period: Span = Span::seconds(10),
        /// How often the ledger is audited: one step over what is new, and one over all history.
        /// See docs/guarantees.md.
        audit_period: Span = Span::seconds(10),
        /// How old an event is when it is audited first; at least 1s, and longer than a commit can
        /// take.
        audit_grace: Span = Span::seconds(60),
        /// Rows of one table in one step of the audit.
        audit_batch: u32 = 2_000,
        /// All history is audited anew after so long, at the earliest.
        audit_repeat: Span = Span::seconds(24 * 3600),
    }
}

section! {
    /// The role that manages projects, keys, endpoints, subscriptions and event types.
    Admin {
        /// Address and port for the gateway, when it is in another process.
        listen: String = "127.0.0.1:8083".into(),
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
