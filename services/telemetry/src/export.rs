//! Exports ended spans to the collector, with a bounded queue and one task. A collector that is
//! slow, hangs or is gone costs spans, never a delivery. Lost spans are counted.

use std::{sync::Arc, time::Duration};

use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::catalog::telemetry::SPANS;

/// Bounds of the export.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) queue: usize,
    pub(crate) batch: usize,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
}

/// Takes ended spans, or drops them if the queue is full.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: mpsc::Sender<SpanData>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            SPANS.with_label_values(&["dropped"]).inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that exports.
#[derive(Debug)]
pub(crate) struct Running {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    patience: Duration,
}

/// Starts the task.
pub(crate) fn start<E: SpanExporter + 'static>(exporter: E, bounds: Bounds) -> (Queue, Running) {
    let (spans, received) = mpsc::channel(bounds.queue);
    let stop = Arc::new(Notify::new());
    let export = Export { exporter, received, bounds, failing: false };
    let task = tokio::spawn(export.run(Arc::clone(&stop)));
    (Queue { spans }, Running { stop, task, patience: 2 * bounds.timeout })
}

impl Running {
    /// Exports the waiting spans, for at most the time of two exports, and ends.
    pub(crate) async fn stop(mut self) {
        self.stop.notify_one();
        if timeout(self.patience, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct Export<E> {
    exporter: E,
    received: mpsc::Receiver<SpanData>,
    bounds: Bounds,
    /// Whether the last export failed. A failure is logged once, not for each batch.
    failing: bool,
}

impl<E: SpanExporter> Export<E> {
    async fn run(mut self, stop: Arc<Notify>) {
        let mut batch = Vec::with_capacity(self.bounds.batch);
        loop {
            let stopped = tokio::select! {
                () = stop.notified() => true,
                () = fill(&mut self.received, &mut batch, self.bounds) => false,
            };
            if stopped {
                self.received.close();
                while self.received.recv_many(&mut batch, self.bounds.batch).await > 0 {
                    self.export(&mut batch).await;
                }
            }
            self.export(&mut batch).await;
            if stopped {
                return;
            }
        }
    }

    async fn export(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let outcome =
            timeout(self.bounds.timeout, self.exporter.export(std::mem::take(batch))).await;
        let failed = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer in time".to_owned()),
        };
        SPANS
            .with_label_values(&[if failed.is_none() { "exported" } else { "failed" }])
            .inc_by(count);
        if let Some(why) = failed.as_ref().filter(|_| !self.failing) {
            tracing::warn!(%why, "spans cannot be exported; they are dropped until the collector \
                answers");
        } else if failed.is_none() && self.failing {
            tracing::info!("spans are exported again");
        }
        self.failing = failed.is_some();
    }
}

/// Waits until the batch is full, or until the period has passed since its first span. Cancel-safe:
/// the batch keeps its spans.
async fn fill(received: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>, bounds: Bounds) {
    if batch.is_empty() && received.recv_many(batch, bounds.batch).await == 0 {
        // The provider is gone, so the task will be stopped soon.
        return std::future::pending().await;
    }
    let deadline = Instant::now() + bounds.period;
    while batch.len() < bounds.batch {
        let room = bounds.batch - batch.len();
        match timeout_at(deadline, received.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry::{
        InstrumentationScope,
        trace::{SpanContext, SpanId, SpanKind, Status},
    };
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;

    fn span() -> SpanData {
        let now = std::time::SystemTime::now();
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "x".into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    /// Counts, fails or hangs.
    #[derive(Debug, Clone, Default)]
    struct Collector {
        batches: Arc<Mutex<Vec<usize>>>,
        fails: bool,
        hangs: bool,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if self.fails {
                return Err(OTelSdkError::InternalFailure("no".into()));
            }
            self.batches.lock().unwrap().push(batch.len());
            Ok(())
        }
    }

    const BOUNDS: Bounds = Bounds {
        queue: 4,
        batch: 2,
        period: Duration::from_secs(3600),
        timeout: Duration::from_millis(100),
    };

    #[tokio::test(start_paused = true)]
    async fn full_batches_go_at_once_and_the_rest_at_the_end() {
        let collector = Collector::default();
        let (queue, running) = start(collector.clone(), BOUNDS);
        for _ in 0..3 {
            queue.on_end(span());
        }
        running.stop().await;
        assert_eq!(collector.batches.lock().unwrap().iter().sum::<usize>(), 3);
        assert!(collector.batches.lock().unwrap().iter().all(|size| *size <= 2));
    }

    // The counts of spans are global to the process. This is the only test that reads them.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_or_fails_costs_spans_and_nothing_else() {
        let count = |result: &str| SPANS.with_label_values(&[result]).get();
        let before = (count("dropped"), count("failed"));
        let (queue, running) = start(Collector { hangs: true, ..Collector::default() }, BOUNDS);
        for _ in 0..100 {
            queue.on_end(span());
        }
        assert_eq!(
            count("dropped") - before.0,
            96,
            "what the queue does not hold is dropped at once"
        );
        let begun = Instant::now();
        running.stop().await;
        assert!(begun.elapsed() <= 2 * BOUNDS.timeout);
        let (queue, running) = start(Collector { fails: true, ..Collector::default() }, BOUNDS);
        queue.on_end(span());
        running.stop().await;
        assert!(count("failed") > before.1);
    }
}
