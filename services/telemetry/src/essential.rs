//! Handles panics of tasks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

/// Returns the result of the work, or `None` if it panics. The panic hook has logged it by then.
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

/// Runs work without which the process is useless. If it panics, the process ends at once, as by
/// SIGKILL. Nothing that was accepted is lost, and a supervisor restarts the process. Otherwise the
/// process would stay alive and do nothing.
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
