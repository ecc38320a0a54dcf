//! From workers to dispatch: one trait, both in process and over one gRPC stream.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use outrider_model::{Error, Reason, Result};
use outrider_proto::internal::{
    AttemptReport, ReportAttemptsRequest, ReportAttemptsResponse,
    settlement_service_client::SettlementServiceClient,
    settlement_service_server::SettlementService,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService, transport,
};

use crate::{
    channels::role::RoleChannel,
    guard::internal::{InternalToken, PresentToken},
    wire::cause,
};

/// Settles the reports of workers.
#[async_trait]
pub trait Settlement: Send + Sync + 'static {
    /// Succeeds when all reports are committed and their jobs are acknowledged in the queue. After
    /// an error, the same batch may be sent again; after `TOO_LARGE`, only parts of it, or
    /// shortened reports.
    async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()>;
}

/// Name of the role in the log.
const DISPATCH: &str = "dispatch";
/// Maximum number of batches in flight on one stream, in each direction.
const WINDOW: usize = 16;

/// The waiters for answers, by the sequence numbers of their batches. A waiter that gave up stays
/// until its answer arrives.
#[derive(Default)]
struct Waiters {
    sent: u64,
    answers: BTreeMap<u64, oneshot::Sender<Result<()>>>,
}

/// The waiters of a stream, or `None` once the stream has ended and no answer can arrive.
type Waiting = Arc<Mutex<Option<Waiters>>>;

/// The client for dispatch in another process. One stream carries all batches. It is opened on
/// first use, and again after it broke.
pub struct RemoteSettlement {
    client: SettlementServiceClient<InterceptedService<transport::Channel, PresentToken>>,
    role: RoleChannel,
    stream: tokio::sync::Mutex<Option<Outbound>>,
}

#[derive(Clone)]
struct Outbound {
    requests: mpsc::Sender<ReportAttemptsRequest>,
    waiting: Waiting,
}

impl Outbound {
    /// Whether answers may still arrive. After dispatch has ended a stream, the channel may accept
    /// batches for a while longer.
    fn is_open(&self) -> bool {
        !self.requests.is_closed() && locked(&self.waiting).is_some()
    }

    /// Sends a batch and waits for its answer.
    async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()> {
        let broke = || Error::unavailable("the stream to dispatch broke");
        let (answer, answered) = oneshot::channel();
        let place = self.requests.reserve().await.map_err(|_| broke())?;
        {
            let mut waiting = locked(&self.waiting);
            let waiting = waiting.as_mut().ok_or_else(broke)?;
            let sequence = waiting.sent;
            waiting.sent += 1;
            waiting.answers.insert(sequence, answer);
            // Under the lock, so that batches are sent in the order of their numbers.
            place.send(ReportAttemptsRequest { sequence, reports });
        }
        answered.await.unwrap_or_else(|_| Err(broke()))
    }
}

impl RemoteSettlement {
    /// Opens streams over a channel and presents the token. Callers bound the size of batches.
    #[must_use]
    pub fn new(role: RoleChannel, token: Option<InternalToken>) -> Self {
        let client = SettlementServiceClient::with_interceptor(role.channel(), PresentToken(token));
        Self { client, role, stream: tokio::sync::Mutex::new(None) }
    }

    async fn outbound(&self) -> Result<Outbound> {
        let mut stream = self.stream.lock().await;
        if let Some(open) = stream.as_ref().filter(|open| open.is_open()) {
            return Ok(open.clone());
        }
        let (requests, receiver) = mpsc::channel(WINDOW);
        let answers = self
            .client
            .clone()
            .report_attempts(ReceiverStream::new(receiver))
            .await
            .map_err(|status| self.role.call_error(DISPATCH, &status))?
            .into_inner();
        let open = Outbound { requests, waiting: Arc::new(Mutex::new(Some(Waiters::default()))) };
        tokio::spawn(read_answers(answers, Arc::clone(&open.waiting), self.role.clone()));
        *stream = Some(open.clone());
        Ok(open)
    }

    async fn forget(&self, broken: &Outbound) {
        let mut stream = self.stream.lock().await;
        if stream.as_ref().is_some_and(|open| open.requests.same_channel(&broken.requests)) {
            *stream = None;
        }
    }
}

#[async_trait]
impl Settlement for RemoteSettlement {
    async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()> {
        let open = self.outbound().await?;
        let outcome = open.settle(reports).await;
        if outcome.is_err() {
            self.forget(&open).await;
        }
        outcome
    }
}

fn locked(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<Waiters>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes answers to their waiters. When the stream ends, passes the reason to all others. Dispatch
/// reads batches in the order of sending, and answers those that it read before it ends a stream.
/// So after a batch over the limit, the first batch that is left is that one, and dispatch has not
/// read the others.
async fn read_answers(
    mut answers: Streaming<ReportAttemptsResponse>,
    waiting: Waiting,
    role: RoleChannel,
) {
    let end = loop {
        let ReportAttemptsResponse { sequence, error } = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => break broken("dispatch ended it"),
            Err(status) => break ended(&status, &role),
        };
        if let Some(waiter) =
            locked(&waiting).as_mut().and_then(|waiting| waiting.answers.remove(&sequence))
        {
            let outcome = if error.is_empty() { Ok(()) } else { Err(Error::unavailable(error)) };
            // A waiter that gave up needs no answer.
            let _ = waiter.send(outcome);
        }
    };
    let mut left = locked(&waiting).take().unwrap_or_default().answers;
    let others = if end.reason == Reason::TooLarge {
        if let Some((_, waiter)) = left.pop_first() {
            let _ = waiter.send(Err(end));
        }
        broken("dispatch ended it after a batch over its limit")
    } else {
        end
    };
    for waiter in left.into_values() {
        let _ = waiter.send(Err(others.clone()));
    }
}

/// Returns the error with which dispatch ended a stream.
fn ended(status: &Status, role: &RoleChannel) -> Error {
    let error = crate::wire::status::from_status(status);
    if error.reason == Reason::TooLarge {
        return error;
    }
    let why = cause::of_status(status);
    role.report_unreachable(DISPATCH, &why);
    broken(&why)
}

fn broken(why: &str) -> Error {
    Error::unavailable(format!("the stream to dispatch broke: {why}"))
}

/// Serves a settlement over gRPC. At shutdown, its streams end when their batches are settled, and
/// workers open streams to other processes.
pub struct SettlementServer {
    settlement: Arc<dyn Settlement>,
    shutdown: CancellationToken,
}

impl SettlementServer {
    /// Serves `settlement` until `shutdown`.
    #[must_use]
    pub fn new(settlement: Arc<dyn Settlement>, shutdown: CancellationToken) -> Self {
        Self { settlement, shutdown }
    }
}

#[async_trait]
impl SettlementService for SettlementServer {
    type ReportAttemptsStream =
        Pin<Box<dyn Stream<Item = Result<ReportAttemptsResponse, Status>> + Send>>;

    async fn report_attempts(
        &self,
        request: Request<Streaming<ReportAttemptsRequest>>,
    ) -> Result<Response<Self::ReportAttemptsStream>, Status> {
        let (answers, receiver) = mpsc::channel(WINDOW);
        tokio::spawn(serve_stream(
            Arc::clone(&self.settlement),
            self.shutdown.clone(),
            request.into_inner(),
            answers,
        ));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Settles up to [`WINDOW`] batches of one stream at once, and answers each when it is done. A
/// batch over the limit ends the stream, once all batches before it are answered.
async fn serve_stream(
    settlement: Arc<dyn Settlement>,
    shutdown: CancellationToken,
    mut requests: impl Stream<Item = Result<ReportAttemptsRequest, Status>> + Unpin,
    answers: mpsc::Sender<Result<ReportAttemptsResponse, Status>>,
) {
    let mut in_flight = FuturesUnordered::new();
    let over_the_limit = loop {
        tokio::select! {
            () = shutdown.cancelled() => break None,
            request = requests.next(), if in_flight.len() < WINDOW => match request {
                Some(Ok(ReportAttemptsRequest { sequence, reports })) => {
                    let settlement = Arc::clone(&settlement);
                    in_flight.push(async move { (sequence, settlement.settle(reports).await) });
                }
                None => break None,
                // The worker must learn that sending the same batch again is useless.
                Some(Err(status)) if status.code() == Code::OutOfRange => break Some(status),
                Some(Err(status)) => {
                    let error = cause::of_status(&status);
                    tracing::info!(error, "a worker's stream of reports broke off");
                    break None;
                }
            },
            Some((sequence, outcome)) = in_flight.next() => {
                if answers.send(Ok(answer(sequence, outcome))).await.is_err() {
                    return;
                }
            }
        }
    };
    while let Some((sequence, outcome)) = in_flight.next().await {
        if answers.send(Ok(answer(sequence, outcome))).await.is_err() {
            return;
        }
    }
    if let Some(status) = over_the_limit {
        // The worker may be gone.
        let _ = answers.send(Err(status)).await;
    }
}

fn answer(sequence: u64, outcome: Result<()>) -> ReportAttemptsResponse {
    let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    ReportAttemptsResponse { sequence, error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_proto::internal::settlement_service_server::SettlementServiceServer;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;

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
    struct Keeping(Mutex<Vec<AttemptReport>>);

    #[async_trait]
    impl Settlement for Keeping {
        async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()> {
            self.0.lock().unwrap().extend(reports);
            Ok(())
        }
    }

    /// Dispatch with a limit of 20 MiB for batches.
    async fn limited(settlement: Arc<dyn Settlement>) -> RemoteSettlement {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = SettlementServer::new(settlement, CancellationToken::new());
        let service = SettlementServiceServer::new(service).max_decoding_message_size(20 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        RemoteSettlement::new(crate::channels::channel::channel(&url, None).unwrap(), None)
    }

    async fn settle(remote: &RemoteSettlement, bytes: usize) -> Result<()> {
        let report =
            AttemptReport { delivery_id: vec![b'x'; bytes].into(), ..AttemptReport::default() };
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
        let kept: Vec<_> =
            kept.0.lock().unwrap().iter().map(|report| report.delivery_id.len()).collect();
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
        async fn settle(&self, _: Vec<AttemptReport>) -> Result<()> {
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
                answer
                    .map(|answer| (answer.sequence, answer.error))
                    .map_err(|status| status.code()),
            );
        }
        sent[..2].sort_by_key(|answer| answer.as_ref().map(|(sequence, _)| *sequence).ok());
        assert_eq!(sent, [Ok((0, String::new())), Ok((1, String::new())), Err(Code::OutOfRange)]);
    }
}
