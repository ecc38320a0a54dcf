//! Metrics of the process. Each is declared in the [`crate::catalog`], and shown once its part of
//! Outrider runs in this process.

mod declaration;

use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus::{Encoder as _, Registry, TextEncoder};

pub(crate) use declaration::section;
pub use declaration::{Declaration, Entry, Metric, Section, long_seconds, seconds, sizes};
pub use prometheus::{
    Counter as FloatCounter, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec,
};

/// The media type of [`render`]: the text format of Prometheus, version 0.0.4.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

type Sampler = Box<dyn Fn() -> bool + Send + Sync>;

static REGISTRY: OnceLock<Registry> = OnceLock::new();
static SAMPLERS: Mutex<Vec<Sampler>> = Mutex::new(Vec::new());

/// Shows a section's metrics from now on. Idempotent.
pub fn expose(section: &Section) {
    let registry = REGISTRY.get_or_init(Registry::new);
    for entry in section.entries {
        // An error means that it is registered already.
        let _ = registry.register((entry.collector)());
    }
}

/// Registers a function that sets gauges before each scrape. It must be quick and must not wait. It
/// is removed when it returns false, because what it measures is gone.
pub fn before_scrape(sampler: impl Fn() -> bool + Send + Sync + 'static) {
    SAMPLERS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(sampler));
}

/// Returns all shown metrics, in the text format of Prometheus.
#[must_use]
pub fn render() -> Vec<u8> {
    SAMPLERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|sampler| sampler());
    let mut text = Vec::new();
    if let Some(registry) = REGISTRY.get()
        && let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text)
    {
        tracing::error!(%error, "the metrics cannot be written");
    }
    text
}

/// Counters with one label whose values are known from the start. They are found by index, without
/// a lookup by text.
pub struct ByIndex(Vec<IntCounter>);

impl ByIndex {
    /// Creates the counters of these values. Each is shown from now on, at 0.
    #[must_use]
    pub fn new(counters: &IntCounterVec, values: &[&str]) -> Self {
        Self(values.iter().map(|value| counters.with_label_values(&[*value])).collect())
    }

    /// Adds to the counter at an index. An index beyond the last counts for the first.
    pub fn add(&self, index: usize, count: u64) {
        if let Some(counter) = self.0.get(index).or_else(|| self.0.first()) {
            counter.inc_by(count);
        }
    }
}

/// Counts something in progress, until it is dropped.
#[derive(Debug)]
pub struct Ongoing(IntGauge);

impl Ongoing {
    /// Increments the gauge.
    #[must_use]
    pub fn begin(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn what_is_exposed_is_shown_once_and_sampled_while_it_lives() {
        expose(&catalog::process::SECTION);
        expose(&catalog::process::SECTION);
        let left = Mutex::new(1);
        before_scrape(move || {
            let mut left = left.lock().unwrap();
            catalog::process::OPEN_FDS.set(77 - *left);
            *left -= 1;
            *left >= 0
        });
        let shown = || String::from_utf8(render()).unwrap();
        assert_eq!(shown().matches("# TYPE process_open_fds gauge").count(), 1);
        assert!(shown().contains("\nprocess_open_fds 77\n"));
        catalog::process::OPEN_FDS.set(5);
        assert!(shown().contains("\nprocess_open_fds 5\n"), "the sampler is forgotten");
    }

    #[test]
    fn numbers_find_their_counters() {
        let counters = ByIndex::new(&catalog::telemetry::SPANS, &["x", "y"]);
        counters.add(1, 2);
        counters.add(7, 1);
        let of = |value| catalog::telemetry::SPANS.with_label_values(&[value]).get();
        assert_eq!((of("x"), of("y")), (1, 2));
    }

    #[test]
    fn what_goes_on_is_counted() {
        let gauge = &catalog::gateway::CONNECTIONS;
        let before = gauge.get();
        let ongoing = (Ongoing::begin(gauge), Ongoing::begin(gauge));
        assert_eq!(gauge.get(), before + 2);
        drop(ongoing);
        assert_eq!(gauge.get(), before);
    }
}
