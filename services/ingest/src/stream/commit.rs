//! Calls to dispatch for the events of a stream.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use outrider_model::{AcceptedEvent, AdmittedEvent, Error, Result, UsedKey};
use outrider_rpc::Intake;
use outrider_shares::Holder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, large::Large};

/// Wait before the first retry. It doubles with each retry.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// An intake that retries calls. A call that is refused as overload had no effect, so it is
/// retried. The stream waits in the meantime, which slows down its client. Any other error means
/// that all events were refused, or that the outcome is unknown.
pub struct PatientIntake {
    intake: Arc<dyn Intake>,
    /// Large batches wait for their turn, again for each attempt.
    large: Large,
    holder: Holder,
    call_timeout: Duration,
    patience: Duration,
    shutdown: CancellationToken,
}

impl PatientIntake {
    /// Creates the intake of a stream of this caller.
    pub fn new(admission: &Admission, holder: Holder, shutdown: CancellationToken) -> Self {
        let (intake, large, options) =
            (Arc::clone(admission.intake()), admission.large().clone(), admission.options());
        Self {
            intake,
            large,
            holder,
            call_timeout: options.stream_call_timeout,
            patience: options.stream_overload_patience,
            shutdown,
        }
    }

    async fn persist<T, A: Future<Output = Result<T>> + Send>(
        &self,
        large: bool,
        ask: impl Fn() -> A + Send,
    ) -> Result<T> {
        let give_up = Instant::now() + self.patience;
        let mut wait = FIRST_WAIT;
        loop {
            let turn = if large { Some(self.large.wait(self.holder).await) } else { None };
            let outcome = tokio::time::timeout(self.call_timeout, ask()).await;
            drop(turn);
            match outcome.unwrap_or_else(|_| {
                Err(Error::unavailable("the commit takes too long; its outcome is unknown"))
            }) {
                Err(error) if error.is_overload() && Instant::now() < give_up => {
                    // Streams that were refused together must not come back together.
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
impl Intake for PatientIntake {
    async fn accept(&self, events: Vec<AdmittedEvent>) -> Result<Vec<Result<AcceptedEvent>>> {
        let bytes = events.iter().map(|event| event.payload.len()).sum();
        let large = self.large.is_large(bytes, events.len());
        self.persist(large, || self.intake.accept(events.clone())).await
    }

    async fn find(&self, keys: Vec<UsedKey>) -> Result<Vec<Option<AcceptedEvent>>> {
        self.persist(false, || self.intake.find(keys.clone())).await
    }
}
