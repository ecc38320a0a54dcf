//! One stream carries the batches of a worker.

use std::time::Duration;

use outrider_proto::internal::settlement_service_server::SettlementServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

use super::{wire::tests::attempted, *};

/// Answers the first batch of each stream and ends its side, but continues to read, like a
/// server that is shutting down.
struct Ending;

#[async_trait]
impl SettlementService for Ending {
    type ReportAttemptsStream =
        Pin<Box<dyn Stream<Item = Result<ReportAttemptsResponse, Status>> + Send>>;

    async fn report_attempts(
        &self,
        request: Request<Streaming<ReportAttemptsRequest>>,
    ) -> Result<Response<Self::ReportAttemptsStream>, Status> {
        let mut requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            if let Ok(Some(request)) = requests.message().await {
                let _ = answers.send(Ok(answer(request.sequence, Ok(())))).await;
            }
            drop(answers);
            while let Ok(Some(_)) = requests.message().await {}
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tokio::test]
async fn nobody_waits_for_an_answer_on_a_stream_that_has_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server =
        tonic::transport::Server::builder().add_service(SettlementServiceServer::new(Ending));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let remote =
        RemoteSettlement::new(crate::channels::channel::channel(&url, None).unwrap(), None);
    let mut broken = 0;
    for _ in 0..200 {
        let settled = tokio::time::timeout(Duration::from_secs(10), remote.settle(Vec::new()));
        match settled.await.expect("an answer, or an error that there is none") {
            Ok(()) => {}
            // The stream ended while the batch was being sent.
            Err(error) => broken += usize::from(error.to_string().contains("broke")),
        }
    }
    assert!(broken < 200, "the first batch of a stream is answered");
}

/// Records the reports that it settles.
#[derive(Default)]
struct Keeping(Mutex<Vec<JobReport>>);

#[async_trait]
impl Settlement for Keeping {
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()> {
        self.0.lock().unwrap().extend(reports);
        Ok(())
    }
}

/// Dispatch with a limit of 20 MiB for batches.
async fn limited(settlement: Arc<dyn Settlement>) -> RemoteSettlement {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = SettlementServer::new(settlement, CancellationToken::new()).service(20 << 20);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    RemoteSettlement::new(crate::channels::channel::channel(&url, None).unwrap(), None)
}

async fn settle(remote: &RemoteSettlement, bytes: usize) -> Result<()> {
    let report = attempted(vec![b'x'; bytes].into());
    tokio::time::timeout(Duration::from_secs(20), remote.settle(vec![report]))
        .await
        .expect("an answer")
}

#[tokio::test]
async fn a_batch_over_the_limit_of_dispatch_is_refused_and_others_are_settled() {
    let kept = Arc::new(Keeping::default());
    let remote = limited(Arc::clone(&kept) as Arc<dyn Settlement>).await;
    settle(&remote, 17 << 20).await.unwrap();
    assert_eq!(settle(&remote, 21 << 20).await.unwrap_err().reason, Reason::TooLarge);
    settle(&remote, 1).await.unwrap();
    let kept: Vec<_> = kept.0.lock().unwrap().iter().map(wire::tests::body_bytes).collect();
    assert_eq!(kept, [17 << 20, 1]);
}

#[tokio::test]
async fn only_the_batch_over_the_limit_is_refused_and_those_behind_it_may_be_sent_again() {
    let remote = limited(Arc::new(Keeping::default())).await;
    // The stream is open, so these are sent in this order.
    settle(&remote, 1).await.unwrap();
    let outcomes = tokio::join!(
        settle(&remote, 2),
        settle(&remote, 21 << 20),
        settle(&remote, 3),
        settle(&remote, 4)
    );
    outcomes.0.expect("dispatch answers what it read before");
    assert_eq!(outcomes.1.unwrap_err().reason, Reason::TooLarge);
    for behind in [outcomes.2, outcomes.3] {
        assert_eq!(behind.unwrap_err().reason, Reason::Unavailable);
    }
    settle(&remote, 3).await.unwrap();
}

/// Settles when it gets a permit.
struct Slow(tokio::sync::Semaphore);

#[async_trait]
impl Settlement for Slow {
    async fn settle(&self, _: Vec<JobReport>) -> Result<()> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }
}

#[tokio::test]
async fn batches_in_flight_are_answered_before_a_batch_over_the_limit_ends_the_stream() {
    let slow = Arc::new(Slow(tokio::sync::Semaphore::new(0)));
    let batch = |sequence| Ok(ReportAttemptsRequest { sequence, reports: Vec::new() });
    let may = Arc::clone(&slow);
    // The batches before it can be settled only after it was read.
    let too_large = futures::stream::once(async move {
        may.0.add_permits(2);
        Err(Status::out_of_range("too large"))
    });
    let requests = futures::stream::iter([batch(0), batch(1)]).chain(too_large);
    let (answers, mut received) = mpsc::channel(WINDOW);
    serve_stream(slow, CancellationToken::new(), Box::pin(requests), answers).await;
    let mut sent = Vec::new();
    while let Some(answer) = received.recv().await {
        sent.push(
            answer.map(|answer| (answer.sequence, answer.error)).map_err(|status| status.code()),
        );
    }
    sent[..2].sort_by_key(|answer| answer.as_ref().map(|(sequence, _)| *sequence).ok());
    assert_eq!(sent, [Ok((0, String::new())), Ok((1, String::new())), Err(Code::OutOfRange)]);
}
