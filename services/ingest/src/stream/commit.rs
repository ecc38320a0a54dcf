//! One call to dispatch for events of a stream.

use std::{sync::Arc, time::Duration};

use outrider_model::{Error, Reason, Result};
use outrider_proto::internal::{AcceptEvent, AcceptEventResult};
use outrider_rpc::Intake;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::StreamOptions;

/// The wait before the first repetition; then twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Hands events on. What is refused as overload had no effect, and is repeated: the stream waits meanwhile, which holds its
/// client. Any other error means that the outcome is unknown, or that all are refused.
pub async fn commit(
    intake: Arc<dyn Intake>,
    options: &StreamOptions,
    events: Vec<AcceptEvent>,
    shutdown: &CancellationToken,
) -> Result<Vec<AcceptEventResult>> {
    let give_up = Instant::now() + options.overload_patience;
    let mut wait = FIRST_WAIT;
    loop {
        let accepting = tokio::time::timeout(options.call_timeout, intake.accept(events.clone()));
        let outcome =
            accepting.await.unwrap_or_else(|_| Err(Error::unavailable("the commit takes too long; the outcome is unknown")));
        match outcome {
            Err(error) if error.reason == Reason::Overloaded && Instant::now() < give_up => {
                // Streams that were refused together come back apart.
                let varied = wait.mul_f64(rand::random_range(0.5..1.0));
                tokio::select! {
                    () = tokio::time::sleep(varied) => wait = (wait * 2).min(LONGEST_WAIT),
                    () = shutdown.cancelled() => return Err(Error::shutting_down()),
                }
            }
            outcome => return outcome,
        }
    }
}
