//! Calls to dispatch for events of a stream.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use outrider_model::{Error, Result};
use outrider_proto::internal::{AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent};
use outrider_rpc::Intake;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::StreamOptions;

/// The wait before the first repetition; then twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// An intake that is asked again. What is refused as overload had no effect, and is repeated: the stream waits meanwhile, which holds
/// its client. Any other error means that the outcome is unknown, or that all are refused.
pub struct Patient {
    intake: Arc<dyn Intake>,
    call_timeout: Duration,
    patience: Duration,
    shutdown: CancellationToken,
}

impl Patient {
    pub fn new(intake: Arc<dyn Intake>, options: &StreamOptions, shutdown: CancellationToken) -> Self {
        Self { intake, call_timeout: options.call_timeout, patience: options.overload_patience, shutdown }
    }

    async fn persist<T, A: Future<Output = Result<T>> + Send>(&self, ask: impl Fn() -> A + Send) -> Result<T> {
        let give_up = Instant::now() + self.patience;
        let mut wait = FIRST_WAIT;
        loop {
            let outcome = tokio::time::timeout(self.call_timeout, ask()).await;
            match outcome.unwrap_or_else(|_| Err(Error::unavailable("the commit takes too long; the outcome is unknown"))) {
                Err(error) if error.is_overload() && Instant::now() < give_up => {
                    // Streams that were refused together come back apart.
                    let varied = wait.mul_f64(rand::random_range(0.5..1.0));
                    tokio::select! {
                        () = tokio::time::sleep(varied) => wait = (wait * 2).min(LONGEST_WAIT),
                        () = self.shutdown.cancelled() => return Err(Error::shutting_down()),
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl Intake for Patient {
    async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
        self.persist(|| self.intake.accept(events.clone())).await
    }

    async fn find(&self, events: Vec<FindEvent>) -> Result<Vec<Option<AcceptedEvent>>> {
        self.persist(|| self.intake.find(events.clone())).await
    }
}
