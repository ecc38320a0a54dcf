//! Work that panics, and what then becomes of the process.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// What the work comes to; none when it panics, which the hook has told by then.
pub async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // After a panic it is not polled again.
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

/// Work without which a process is of no use: when it panics, the process ends at once, as by
/// SIGKILL. Nothing that was accepted is lost by that, and whoever runs the process starts it
/// again; without it the process would be there, and do nothing, for ever.
pub async fn essential<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    match caught(work).await {
        Some(done) => done,
        None => {
            tracing::error!(task = name, "an essential task panicked: the process ends");
            std::process::abort()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_apart_from_an_end() {
        assert_eq!(caught(async { 7 }).await, Some(7));
        let late = async {
            tokio::task::yield_now().await;
            panic!("a fault");
        };
        assert_eq!(caught::<()>(late).await, None);
        assert_eq!(essential("a sum", async { 1 + 1 }).await, 2);
    }
}
