//! Waits for a condition, never for a fixed time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `condition` until it returns a value. When `bound` has passed, fails with an error that
/// says `what`.
pub async fn wait_until<T>(
    what: &str,
    bound: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if begin.elapsed() > bound {
            bail!("waited {bound:?} in vain until {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Does the same without a runtime.
pub fn wait_blocking<T>(
    what: &str,
    bound: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if begin.elapsed() > bound {
            bail!("waited {bound:?} in vain until {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
