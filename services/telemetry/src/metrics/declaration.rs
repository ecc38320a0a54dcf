//! Declares metrics: name, kind, labels and help in one place.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, core::Collector,
};

/// The declaration of a metric.
#[derive(Debug)]
pub struct Declaration {
    /// Its name, with its base unit.
    pub name: &'static str,
    /// The help text: what it counts or measures.
    pub help: &'static str,
    /// The names of its labels. Their values are few and never ids.
    pub labels: &'static [&'static str],
    /// The upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}

/// One metric of a section.
pub struct Entry {
    /// Its declaration.
    pub declaration: Declaration,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The metric itself.
    pub collector: fn() -> Box<dyn Collector>,
}

/// The metrics of one part of Outrider.
pub struct Section {
    /// The name of the part.
    pub name: &'static str,
    /// Its metrics.
    pub entries: &'static [Entry],
}

/// A kind of metric.
pub trait Metric: Collector + Clone + Sized + 'static {
    /// The kind in the text format.
    const KIND: &'static str;

    /// Makes the metric.
    fn make(declaration: &Declaration) -> prometheus::Result<Self>;
}

macro_rules! kinds {
    ($($type:ident: $kind:literal = |$declaration:ident| $make:expr;)+) => {$(
        impl Metric for $type {
            const KIND: &'static str = $kind;

            fn make($declaration: &Declaration) -> prometheus::Result<Self> {
                $make
            }
        }
    )+};
}

kinds! {
    IntCounter: "counter" = |of| IntCounter::with_opts(opts(of));
    IntCounterVec: "counter" = |of| IntCounterVec::new(opts(of), of.labels);
    IntGauge: "gauge" = |of| IntGauge::with_opts(opts(of));
    IntGaugeVec: "gauge" = |of| IntGaugeVec::new(opts(of), of.labels);
    Gauge: "gauge" = |of| Gauge::with_opts(opts(of));
    GaugeVec: "gauge" = |of| GaugeVec::new(opts(of), of.labels);
    Histogram: "histogram" = |of| Histogram::with_opts(histogram(of));
    HistogramVec: "histogram" = |of| HistogramVec::new(histogram(of), of.labels);
}

/// A counter of fractions, for CPU seconds.
impl Metric for prometheus::Counter {
    const KIND: &'static str = "counter";

    fn make(declaration: &Declaration) -> prometheus::Result<Self> {
        Self::with_opts(opts(declaration))
    }
}

fn opts(declaration: &Declaration) -> Opts {
    Opts::new(declaration.name, declaration.help.trim())
}

fn histogram(declaration: &Declaration) -> HistogramOpts {
    HistogramOpts::from(opts(declaration)).buckets(declaration.buckets.to_vec())
}

/// Buckets in seconds, from half a millisecond to a minute.
#[must_use]
pub const fn seconds() -> &'static [f64] {
    &[
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ]
}

/// Buckets in seconds for things that may wait, from five milliseconds to an hour.
#[must_use]
pub const fn long_seconds() -> &'static [f64] {
    &[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
        3600.0,
    ]
}

/// Buckets for the number of things in a batch, 1 to 1,024.
#[must_use]
pub const fn sizes() -> &'static [f64] {
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
}

/// Declares the metrics of a section: a static for each, and `SECTION`. The doc comment of a metric
/// is its help.
macro_rules! section {
    ($section:literal { $($(#[doc = $help:literal])+ $static:ident: $type:ident($name:literal $(,
        [$($label:literal),+])? $(, $buckets:ident)?);)+ }) => {
        $(
            $(#[doc = $help])+
            pub static $static: std::sync::LazyLock<$crate::metrics::$type> =
                std::sync::LazyLock::new(|| {
                let declaration = $crate::metrics::Declaration {
                    name: $name,
                    help: concat!($($help),+),
                    labels: &[$($($label),+)?],
                    buckets: $crate::metrics::section!(@buckets $($buckets)?),
                };
                <$crate::metrics::$type as $crate::metrics::Metric>::make(&declaration)
                    .expect("a test makes every metric of the catalog")
            });
        )+

        /// These metrics.
        pub static SECTION: $crate::metrics::Section = $crate::metrics::Section {
            name: $section,
            entries: &[$(
                $crate::metrics::Entry {
                    declaration: $crate::metrics::Declaration {
                        name: $name,
                        help: concat!($($help),+),
                        labels: &[$($($label),+)?],
                        buckets: $crate::metrics::section!(@buckets $($buckets)?),
                    },
                    kind: <$crate::metrics::$type as $crate::metrics::Metric>::KIND,
                    collector: || Box::new((*$static).clone()),
                },
            )+],
        };
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets() };
}
pub(crate) use section;
