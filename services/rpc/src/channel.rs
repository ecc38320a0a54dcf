//! Channels to roles in other processes.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

/// Bytes that one call may have under way between roles, in each direction.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// Bytes that one connection may have under way between roles. Fixed and large, not adaptive: half of it is also what h2 tolerates in
/// small frames that arrived and are not read yet, and an adaptive window begins so small that a burst of a hundred and thirty short
/// answers ends the connection (ENHANCE_YOUR_CALM, too_many_data_frames).
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Bytes of a long stream that may wait to be read. Its reader may be as slow as it likes.
pub const LONG_STREAM_WINDOW: u32 = 64 * 1024;

/// Bytes of all long streams of a connection: room for the window of each of the 1,024 that a server takes, so that those whose readers
/// are slow do not hold up the others.
pub const LONG_CONNECTION_WINDOW: u32 = 1024 * LONG_STREAM_WINDOW;

/// A channel to `http://HOST:PORT`. It connects when it is used, and again when it broke; a peer that is gone without a word is noticed
/// within 15 seconds.
pub fn channel(url: &str) -> Result<Channel, Error> {
    Ok(endpoint(url)?.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).connect_lazy())
}

/// The same for streams whose reader is not ours: apart from calls, which they would otherwise hold up.
pub fn long_streams(url: &str) -> Result<Channel, Error> {
    let endpoint = endpoint(url)?.initial_stream_window_size(LONG_STREAM_WINDOW);
    Ok(endpoint.initial_connection_window_size(LONG_CONNECTION_WINDOW).connect_lazy())
}

fn endpoint(url: &str) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use async_trait::async_trait;
    use outrider_model::Result;
    use outrider_proto::internal::{
        AcceptEvent, AcceptEventResult, AcceptedEvent, FindEvent, intake_service_server::IntakeServiceServer,
    };
    use tokio::{net::TcpListener, sync::Barrier};
    use tokio_util::sync::CancellationToken;
    use tower::util::BoxCloneSyncService;

    use super::*;
    use crate::{
        Intake,
        intake::{IntakeServer, RemoteIntake},
        server::serve,
    };

    const CALLERS: usize = 2_000;

    /// Answers all at once, when all have come.
    struct Crowd(Barrier);

    #[async_trait]
    impl Intake for Crowd {
        async fn accept(&self, events: Vec<AcceptEvent>) -> Result<Vec<AcceptEventResult>> {
            self.0.wait().await;
            Ok(events.iter().map(|_| AcceptEventResult::default()).collect())
        }

        async fn find(&self, events: Vec<FindEvent>) -> Result<Vec<Option<AcceptedEvent>>> {
            Ok(vec![None; events.len()])
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_burst_of_short_answers_does_not_end_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let intake = IntakeServiceServer::new(IntakeServer(Arc::new(Crowd(Barrier::new(CALLERS / 4)))));
        let routes = tonic::service::Routes::new(intake);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, BoxCloneSyncService::new(routes.prepare()), shutdown.clone()));
        let remote = RemoteIntake::new(channel(&url).unwrap(), None, 1024 * 1024);
        let calls = (0..CALLERS).map(|_| remote.accept(vec![AcceptEvent::default()]));
        let all = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(calls)).await.unwrap();
        for answer in all {
            assert_eq!(answer.unwrap().len(), 1);
        }
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
