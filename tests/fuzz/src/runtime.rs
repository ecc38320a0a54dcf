//! A runtime for each input, so that no input affects the next one. Its clock stands still while
//! there is work, and otherwise jumps to the next timer.

use std::{future::Future, time::Duration};

use tokio::{runtime::Builder, time::Instant};

/// Runs a future to its end, which must come within `most` of that clock.
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
