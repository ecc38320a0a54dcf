//! A runtime for each input, so that nothing of one is left for the next. Its clock stands still
//! while anything can be done, and leaps to the next alarm when nothing can.

use std::{future::Future, time::Duration};

use tokio::{runtime::Builder, time::Instant};

/// Runs to the end, which must come within `most` by that clock.
pub fn run<F: Future>(most: Duration, future: F) -> F::Output {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs no resource");
    runtime.block_on(async {
        let begun = Instant::now();
        let output = tokio::time::timeout(most, future).await;
        output.unwrap_or_else(|_| panic!("it has not ended after {:?}", begun.elapsed()))
    })
}
