//! The settings of a worker, and what its process gives it.

use std::{sync::Arc, time::Duration};

use outrider_model::{Error, Result, WindowRules};
use outrider_settings::{
    Invalid, KIB, MIB, Positive, Section as _, millis, minutes, seconds, section,
};
use tokio_rustls::rustls::{crypto::ring, pki_types::CertificateDer};

use crate::{bounds::WireBounds, trust::Trust};

section! {
    /// The role that signs and sends.
    pub struct Options in "worker" {
        /// URL of dispatch when it is not in this process.
        pub dispatch_url: String = "http://127.0.0.1:8082".into();
        /// The egress proxy when it is not in this process, as `HOST:PORT`.
        pub egress_address: String = "127.0.0.1:8084".into();
        /// Slots: maximum number of requests in flight. They are divided into fair shares: alone,
        /// an organization has half of them, each of its projects a quarter, each endpoint an
        /// eighth.
        pub max_in_flight: u32 = 8_192, 8..;
        /// Maximum number of jobs in hand, from reading until they are settled. 0 for a quarter
        /// more than all shards of the queue hold together. It must not be less than they hold, nor
        /// less than `max_in_flight`: jobs that wait for their turn would keep others in the queue.
        pub max_jobs: usize = 0;
        /// The window of an endpoint that has not answered lately: the number of requests to it in
        /// flight. It grows by one with each 2xx answer, up to the endpoint's own `max_in_flight`,
        /// and is halved by each timeout.
        pub initial_window: u32 = 8, 1..;
        /// A request to an endpoint that has not answered lately, or whose last request timed out,
        /// takes one slot for each this many bytes of a payload that is too large to travel with
        /// its job.
        pub slot_payload_bytes: usize = 128 * KIB, 1..;
        /// How long the window of an endpoint is remembered after its last request; up to twice as
        /// long.
        pub window_memory: Duration = minutes(10), Positive;
        /// Maximum number of windows that are remembered. Beyond it, the least recently used are
        /// forgotten.
        pub windows_kept: usize = 20_000, 1..;
        /// Maximum number of bytes of payloads in hand that were too large to travel with their
        /// jobs, divided into fair shares like the slots. A payload counts as an eighth of this at
        /// most.
        pub payload_bytes: usize = 256 * MIB, 8 * KIB..;
        /// Maximum number of bytes of such payloads that one read fetches from the database. One
        /// payload alone may exceed it.
        pub payload_batch_bytes: usize = MIB, 1..;
        /// Maximum number of reads of such payloads in flight.
        pub payload_reads: usize = 4, 1..;
        /// Maximum number of bytes of answers (bodies and headers) in reports that dispatch has not
        /// settled, divided into fair shares like the slots; answers below 1 KiB do not count. One
        /// endpoint may have an eighth. An answer that finds no room is reported by its status
        /// alone. It must be at least eight times `response_kept_bytes`.
        pub unreported_bytes: usize = 64 * MIB, 8 * KIB..;
        /// Maximum number of jobs read from the queue at once.
        pub read_batch: usize = 256, 1..;
        /// How long a read waits for the first job. A shutdown waits as long.
        pub read_wait: Duration = seconds(1), millis(1)..=minutes(1);
        /// How often the worker looks for jobs whose lease ran out. 0s for a ninth of
        /// `queue.lease`: lease and look together stay well below the minute within which
        /// everything is to be delivered after a fault.
        pub reclaim_period: Duration = Duration::ZERO;
        /// Maximum number of leases renewed in one call.
        pub renew_batch: usize = 1_024, 1..;
        /// Maximum number of reports settled at once. Reports that are ready are sent at once; the
        /// next batch forms while batches are in flight.
        pub report_batch: usize = 256, 1..;
        /// Maximum size of a batch of reports, in bytes. One report alone may exceed it. All
        /// processes must agree.
        pub report_batch_bytes: usize = 2 * MIB, 1..;
        /// Maximum number of batches of reports in flight.
        pub report_streams: usize = 4, 1..;
        /// How long the worker waits for the answer to a batch of reports before it sends the batch
        /// again.
        pub settle_timeout: Duration = seconds(60), Positive;
        /// How much of an answer's body is kept, in bytes. All processes must agree.
        pub response_kept_bytes: usize = 16 * KIB;
        /// How much of an answer's body is read, in bytes. If the body is longer, the connection is
        /// closed. It must be at least `response_kept_bytes`.
        pub response_read_bytes: usize = 64 * KIB;
        /// Maximum size of the head of an answer with the interim answers before it, in bytes. Of
        /// a larger one the status counts, if its line has arrived; otherwise it is a bad response.
        pub response_head_bytes: usize = 64 * KIB, 8 * KIB..;
        /// Maximum number of headers of an answer that are kept.
        pub response_headers_kept: usize = 64;
        /// Maximum number of bytes of headers of an answer (names and values) that are kept.
        pub response_headers_kept_bytes: usize = 8 * KIB;
        /// Maximum number of interim answers (1xx) before an answer. With more, it is a bad
        /// response. Their bytes count towards `response_head_bytes`.
        pub response_interim_answers: usize = 8;
        /// Maximum number of bytes read from an endpoint's connection in one exchange, including
        /// TLS, heads, chunk sizes and trailers; the TLS handshake may take as many again. More end
        /// the exchange. It must be at least `response_head_bytes` + `response_read_bytes`.
        pub response_wire_bytes: usize = 256 * KIB;
        /// Maximum number of reads from an endpoint's connection in one exchange, which an endpoint
        /// that sends single bytes uses up; the TLS handshake may take as many again. More end the
        /// exchange.
        pub response_wire_reads: usize = 1_024, 64..;
        /// Maximum number of idle connections to one host and port.
        pub pool_idle_per_host: usize = 64;
        /// Maximum number of idle connections to all endpoints. When there is no room, the hosts
        /// with most of them make it.
        pub pool_idle_total: usize = 4_096;
        /// How long an idle connection is kept to an endpoint that does not say how long it keeps
        /// it (`Keep-Alive: timeout`). It is less for an endpoint that ended connections before.
        pub pool_idle_timeout: Duration = millis(1_500);
        /// Maximum time that an idle connection is kept, whatever the endpoint says.
        pub pool_told_timeout: Duration = seconds(60);
        /// Maximum number of endpoints whose prepared headers are cached.
        pub destinations_kept: usize = 4_096;
        /// How long a job waits for an egress that cannot be reached before it is given back.
        pub egress_patience: Duration = seconds(10);
        /// At shutdown: how long requests in flight and their reports may take to end.
        pub drain: Duration = seconds(30);
        /// A PEM file of certificates to trust in addition to the public authorities; empty for
        /// none. The certificate of an authority vouches for others. Any other certificate is
        /// trusted itself, for the names in it and until it expires.
        pub extra_roots_file: String = String::new();
    }
    with rules;
}

fn rules(options: &Options) -> Result<(), Invalid> {
    let no_fewer = options.max_jobs == 0 || options.max_jobs >= options.max_in_flight as usize;
    Invalid::unless(
        no_fewer,
        "worker.max_jobs",
        "must be 0, or at least worker.max_in_flight and queue.window times queue.shards",
    )?;
    Invalid::unless(
        options.response_read_bytes >= options.response_kept_bytes,
        "worker.response_read_bytes",
        "must be at least worker.response_kept_bytes",
    )?;
    let exchange = options.response_head_bytes.saturating_add(options.response_read_bytes);
    Invalid::unless(
        options.response_wire_bytes >= exchange,
        "worker.response_wire_bytes",
        "must be at least worker.response_head_bytes + worker.response_read_bytes",
    )?;
    Invalid::unless(
        options.response_kept_bytes <= options.unreported_bytes / 8,
        "worker.unreported_bytes",
        "must be at least eight times worker.response_kept_bytes: \
         an endpoint has an eighth, and longer answers would never be kept",
    )
}

impl Options {
    /// With the values that 0 stands for.
    pub(crate) fn resolved(mut self, given: &Given) -> Self {
        if self.max_jobs == 0 {
            // All jobs that the queue holds, and some that are settled but not yet removed from it.
            let most = given.queue_jobs.saturating_add(given.queue_jobs / 4);
            self.max_jobs = most.max(self.max_in_flight as usize);
        }
        if self.reclaim_period.is_zero() {
            self.reclaim_period = given.lease / 9;
        }
        self
    }

    /// What one exchange may take from the wire.
    pub(crate) fn wire(&self) -> WireBounds {
        WireBounds {
            interim_answers: self.response_interim_answers,
            bytes: self.response_wire_bytes,
            reads: self.response_wire_reads,
        }
    }

    /// How the windows of endpoints begin and end.
    pub(crate) fn windows(&self) -> WindowRules {
        WindowRules {
            initial: self.initial_window,
            least: 1,
            capacity: self.windows_kept,
            memory: self.window_memory,
        }
    }

    /// The room for payloads that do not come with their jobs, in KiB.
    pub(crate) fn payload_units(&self) -> u32 {
        u32::try_from(self.payload_bytes / 1024).unwrap_or(u32::MAX)
    }

    /// The room for answers in reports, in KiB.
    pub(crate) fn answer_units(&self) -> u32 {
        u32::try_from(self.unreported_bytes / 1024).unwrap_or(u32::MAX)
    }
}

/// What the process gives a worker besides its settings.
#[derive(Debug, Clone)]
pub struct Given {
    /// This process's name in the queue, which no two processes may share. Default: `worker-` and
    /// 16 random hexadecimal digits.
    pub consumer: String,
    /// How long the queue leaves a job with its reader; must be the queue's own setting. Leases are
    /// renewed each third of it. Jobs queued longer ago than this are checked in the database
    /// before they are sent, like redelivered ones. Default: 45 s.
    pub lease: Duration,
    /// Maximum number of jobs that all shards of the queue hold together. Default: 32,768.
    pub queue_jobs: usize,
    /// The user agent of requests. Default: `Outrider/` and the version.
    pub user_agent: String,
    /// Whether requests carry the trace of an event that has one, in the headers `traceparent` and
    /// `tracestate`. Default: true.
    pub propagate_trace: bool,
    /// Certificates to trust in addition to the public authorities: authorities, and servers' own.
    /// Default: none.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            consumer: format!("worker-{:016x}", rand::random::<u64>()),
            lease: seconds(45),
            queue_jobs: 32_768,
            user_agent: concat!("Outrider/", env!("CARGO_PKG_VERSION")).to_owned(),
            propagate_trace: true,
            extra_roots: Vec::new(),
        }
    }
}

impl Given {
    /// Refuses `extra_roots` that cannot be used; the error says which.
    pub fn check_trust(&self) -> Result<()> {
        Trust::new(&self.extra_roots, Arc::new(ring::default_provider())).map(drop)
    }

    /// How often leases are renewed.
    pub(crate) fn renew_period(&self) -> Duration {
        self.lease / 3
    }
}

/// Refuses what cannot work, with the name of the setting.
pub(crate) fn check(options: &Options, given: &Given) -> Result<()> {
    options.check().map_err(|invalid| Error::field(invalid.key, invalid.message))?;
    if given.consumer.is_empty() {
        return Err(Error::field("consumer", "must not be empty"));
    }
    if given.lease < seconds(1) {
        return Err(Error::field("queue.lease", "must be at least 1s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_cannot_is_named() {
        let refused = |options: &Options, given: &Given| {
            check(options, given).unwrap_err().violations[0].field.clone()
        };
        let (options, given) = (Options::default(), Given::default());
        assert_eq!(check(&options, &given), Ok(()));
        assert_ne!(given.consumer, Given::default().consumer);
        let lease = Given { lease: millis(999), ..given.clone() };
        assert_eq!(refused(&options, &lease), "queue.lease");
        for (wrong, key) in [
            (Options { max_in_flight: 7, ..options.clone() }, "worker.max_in_flight"),
            (Options { max_jobs: 8_191, ..options.clone() }, "worker.max_jobs"),
            (Options { response_read_bytes: 1, ..options.clone() }, "worker.response_read_bytes"),
            (
                Options { response_read_bytes: usize::MAX, ..options.clone() },
                "worker.response_wire_bytes",
            ),
            (Options { response_wire_reads: 63, ..options.clone() }, "worker.response_wire_reads"),
        ] {
            assert_eq!(refused(&wrong, &given), key);
        }
    }

    #[test]
    fn the_room_for_answers_holds_eight_of_what_is_kept() {
        let room = |unreported: usize, kept: usize| {
            let options = Options {
                unreported_bytes: unreported,
                response_kept_bytes: kept,
                response_read_bytes: kept,
                response_wire_bytes: 64 * MIB,
                ..Options::default()
            };
            options.check().map_err(|invalid| invalid.key)
        };
        assert!(room(128 * KIB, 16 * KIB).is_ok() && room(8 * KIB, KIB).is_ok());
        for refused in [room(128 * KIB - 1, 16 * KIB), room(64 * MIB, 8 * MIB + 1)] {
            assert_eq!(refused, Err("worker.unreported_bytes".to_owned()));
        }
    }

    #[test]
    fn zero_stands_for_what_follows_from_the_queue() {
        let given = Given { queue_jobs: 40_000, lease: seconds(90), ..Given::default() };
        let resolved = Options::default().resolved(&given);
        assert_eq!((resolved.max_jobs, resolved.reclaim_period), (50_000, seconds(10)));
        let small = Given { queue_jobs: 8, ..given };
        assert_eq!(Options::default().resolved(&small).max_jobs, 8_192);
    }
}
