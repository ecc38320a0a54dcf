//! Shared parts of the queue's tests: servers, backends, and the suite that every backend passes.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod backend;
pub mod jobs;
pub mod server;
pub mod suite;
pub mod tls;

use std::time::{Duration, Instant};

/// How long a condition may take on a busy machine before its test fails.
pub const BOUND: Duration = Duration::from_secs(20);

/// Repeats the condition until it gives something. Fails the test after `BOUND`.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(begin.elapsed() < BOUND, "did not happen in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
