//! How a worker behaves.

use std::{sync::Arc, time::Duration};

use outrider_model::{Error, Result, WindowRules, shares::SMALLEST_TOTAL};
use tokio_rustls::rustls::{crypto::ring, pki_types::CertificateDer};

use crate::{bounds::WireBounds, trust::Trust};

/// How a worker behaves. [`Options::default`] is what each field names as its default.
#[derive(Debug, Clone)]
pub struct Options {
    /// This process's name in the queue. Default: `worker-` and 16 random hexadecimal digits. Two
    /// processes must not share one.
    pub consumer: String,
    /// Slots: requests under way at once, divided into fair shares. At least 8. Alone, an
    /// organisation has half of them, each of its projects a quarter, each endpoint an eighth.
    /// Default 8192.
    pub max_in_flight: u32,
    /// The window of an endpoint that has not answered lately: requests to it under way at once. It
    /// grows by one with each 2xx answer, up to the endpoint's `max_in_flight`, and is halved by
    /// each timeout. At least 1. Default 8.
    pub initial_window: u32,
    /// A request to an endpoint that has not answered lately, or whose last request timed out,
    /// takes one slot for each so many bytes of a payload that does not travel with its job. At
    /// least 1. Default 128 KiB.
    pub slot_payload_bytes: usize,
    /// How long the window of an endpoint is remembered that nothing is heard of; up to twice as
    /// long. Default 10 min.
    pub window_memory: Duration,
    /// Windows remembered; beyond it those are forgotten of which nothing was heard for longest. At
    /// least 1. Default 20000.
    pub windows_kept: usize,
    /// Jobs read at once, at most. Default 256.
    pub read_batch: usize,
    /// How long a read waits for the first job. Default 1 s; a shutdown waits as long.
    pub read_wait: Duration,
    /// How long the queue leaves a job to its reader; must be the queue's own setting, at least 1
    /// s, better longer than the longest timeout of an endpoint (30 s), so that a worker that
    /// stalls between renewals keeps its jobs. Renewed each third of it. Default 45 s. Jobs queued
    /// longer ago than this are checked in the database before they are sent, like redelivered
    /// ones.
    pub lease: Duration,
    /// How often jobs whose lease ran out are looked for. Default 5 s.
    pub reclaim_period: Duration,
    /// Leases renewed in one call. Default 1024.
    pub renew_batch: usize,
    /// Reports settled at once, at most. Whatever is ready goes at once; while batches are on their
    /// way the next one forms. Default 256.
    pub report_batch: usize,
    /// Size of a batch of reports, in bytes; one report may exceed it alone. Default 2 MiB.
    pub report_batch_bytes: usize,
    /// Batches of reports on their way at once. Default 4.
    pub report_streams: usize,
    /// Jobs in hand from reading to settlement, at most; when so many are, reading stops. Should be
    /// above the window of the queue, so that jobs which wait for their turn never keep others in
    /// the queue. At least `max_in_flight`. Default 40000.
    pub max_jobs: usize,
    /// How long an answer to a batch of reports is awaited before the batch is sent again. Default
    /// 60 s.
    pub settle_timeout: Duration,
    /// Bytes of an answer's body that are reported. Default 16 KiB.
    pub response_kept_bytes: usize,
    /// Bytes of an answer's body that are read; after more, the connection is dropped. Default 64
    /// KiB.
    pub response_read_bytes: usize,
    /// Bytes of an answer's head that are read; of a larger one the status counts, if its line has
    /// come. At least 8 KiB. Default 64 KiB.
    pub response_head_bytes: usize,
    /// What one exchange may take from the wire, whatever the endpoint sends.
    pub wire: WireBounds,
    /// Headers of an answer that are reported. Default 64.
    pub response_headers_kept: usize,
    /// Bytes of headers (names and values) of an answer that are reported. Default 8 KiB.
    pub response_headers_kept_bytes: usize,
    /// Bytes of answers (bodies and headers) in reports that dispatch has not settled, divided into
    /// fair shares as the slots are: one endpoint may hold an eighth. Answers below 1 KiB do not
    /// count. An answer that finds no room is reported by its status alone. At least 8 KiB. Default
    /// 64 MiB.
    pub unreported_bytes: usize,
    /// Idle connections kept to one host and port. Default 64.
    pub pool_idle_per_host: usize,
    /// Idle connections kept in all. Default 4096.
    pub pool_idle_total: usize,
    /// How long an idle connection is kept to an endpoint that does not say (`Keep-Alive: timeout`)
    /// how long it keeps it. Default 1.5 s.
    pub pool_idle_timeout: Duration,
    /// How long one is kept at most, whatever an endpoint says. Default 60 s.
    pub pool_told_timeout: Duration,
    /// Endpoints whose prepared headers are kept. Default 4096.
    pub destinations_kept: usize,
    /// Bytes of payloads that are in hand because their jobs named them by reference, divided into
    /// fair shares as the slots are. A payload counts as an eighth of this at most. At least 8 KiB.
    /// Default 256 MiB.
    pub payload_bytes: usize,
    /// Bytes of payloads that are read from the database at once; one payload may exceed it alone.
    /// Default 1 MiB.
    pub payload_batch_bytes: usize,
    /// Such reads under way at once. At least 1. Default 4.
    pub payload_reads: usize,
    /// How long a job waits for an egress that cannot be reached before it is given back. Default
    /// 10 s.
    pub egress_patience: Duration,
    /// How long a shutdown waits for requests under way and for their reports. Default 30 s.
    pub drain: Duration,
    /// What requests name as their user agent. Default `Outrider/` and the version.
    pub user_agent: String,
    /// Whether endpoints are told the trace of an event that has one, by the headers `traceparent`
    /// and `tracestate`. Default true.
    pub propagate_trace: bool,
    /// Certificates that are trusted beside the authorities of the web: authorities, and servers'
    /// own. Default none.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            consumer: format!("worker-{:016x}", rand::random::<u64>()),
            max_in_flight: 8_192,
            initial_window: 8,
            slot_payload_bytes: 128 << 10,
            window_memory: Duration::from_secs(600),
            windows_kept: 20_000,
            read_batch: 256,
            read_wait: Duration::from_secs(1),
            lease: Duration::from_secs(45),
            reclaim_period: Duration::from_secs(5),
            renew_batch: 1_024,
            report_batch: 256,
            report_batch_bytes: 2 << 20,
            report_streams: 4,
            max_jobs: 40_000,
            settle_timeout: Duration::from_secs(60),
            response_kept_bytes: 16 << 10,
            response_read_bytes: 64 << 10,
            response_head_bytes: 64 << 10,
            wire: WireBounds::default(),
            response_headers_kept: 64,
            response_headers_kept_bytes: 8 << 10,
            unreported_bytes: 64 << 20,
            pool_idle_per_host: 64,
            pool_idle_total: 4_096,
            pool_idle_timeout: Duration::from_millis(1_500),
            pool_told_timeout: Duration::from_secs(60),
            destinations_kept: 4_096,
            payload_bytes: 256 << 20,
            payload_batch_bytes: 1 << 20,
            payload_reads: 4,
            egress_patience: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            user_agent: concat!("Outrider/", env!("CARGO_PKG_VERSION")).to_owned(),
            propagate_trace: true,
            extra_roots: Vec::new(),
        }
    }
}

impl Options {
    /// Refuses `extra_roots` that are of no use; the error says which.
    pub fn check_trust(&self) -> Result<()> {
        Trust::new(&self.extra_roots, Arc::new(ring::default_provider())).map(drop)
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

    /// The room for payloads that come by reference, in KiB.
    pub(crate) fn payload_units(&self) -> u32 {
        u32::try_from(self.payload_bytes / 1024).unwrap_or(u32::MAX)
    }

    /// The room for answers in reports, in KiB.
    pub(crate) fn answer_units(&self) -> u32 {
        u32::try_from(self.unreported_bytes / 1024).unwrap_or(u32::MAX)
    }

    /// How often leases are renewed.
    pub(crate) fn renew_period(&self) -> Duration {
        self.lease / 3
    }

    /// Refuses what cannot work, with the field's name.
    pub fn check(&self) -> Result<()> {
        self.wire.check(self.response_head_bytes, self.response_read_bytes)?;
        let faults = [
            (self.consumer.is_empty(), "consumer", "must not be empty"),
            (self.max_in_flight < SMALLEST_TOTAL, "max_in_flight", "must be at least 8"),
            (self.initial_window == 0, "initial_window", "must be at least 1"),
            (self.slot_payload_bytes == 0, "slot_payload_bytes", "must be at least 1"),
            (self.windows_kept == 0, "windows_kept", "must be at least 1"),
            (self.read_batch == 0, "read_batch", "must be at least 1"),
            (self.lease < Duration::from_secs(1), "lease", "must be at least 1 s"),
            (self.reclaim_period.is_zero(), "reclaim_period", "must be more than 0"),
            (self.renew_batch == 0, "renew_batch", "must be at least 1"),
            (self.report_batch == 0, "report_batch", "must be at least 1"),
            (self.report_streams == 0, "report_streams", "must be at least 1"),
            (
                self.max_jobs < self.max_in_flight as usize,
                "max_jobs",
                "must be at least max_in_flight",
            ),
            (self.settle_timeout.is_zero(), "settle_timeout", "must be more than 0"),
            (
                self.response_read_bytes < self.response_kept_bytes,
                "response_read_bytes",
                "must be at least response_kept_bytes",
            ),
            (self.response_head_bytes < 8 << 10, "response_head_bytes", "must be at least 8192"),
            (self.payload_bytes < 8 << 10, "payload_bytes", "must be at least 8192"),
            (self.unreported_bytes < 8 << 10, "unreported_bytes", "must be at least 8192"),
            (self.payload_reads == 0, "payload_reads", "must be at least 1"),
        ];
        match faults.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, field, description)) => Err(Error::field(field, description)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_cannot_is_named() {
        assert_eq!(Options::default().check(), Ok(()));
        assert_ne!(Options::default().consumer, Options::default().consumer);
        let lease = Options { lease: Duration::from_millis(999), ..Options::default() };
        assert_eq!(lease.check().unwrap_err().violations[0].field, "lease");
        let slots = Options { max_in_flight: 7, ..Options::default() };
        assert_eq!(slots.check().unwrap_err().violations[0].field, "max_in_flight");
        let jobs = Options { max_jobs: 8_191, ..Options::default() };
        assert_eq!(jobs.check().unwrap_err().violations[0].field, "max_jobs");
    }
}
