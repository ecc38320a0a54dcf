//! From workers to dispatch: the same trait in one process and over one gRPC stream.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use outrider_model::{Error, Reason, Result};
use outrider_proto::internal::{
    AttemptReport, ReportAttemptsRequest, ReportAttemptsResponse, settlement_service_client::SettlementServiceClient,
    settlement_service_server::SettlementService,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, service::interceptor::InterceptedService, transport};

use crate::{
    RoleChannel, cause,
    internal::{InternalToken, Present},
};

/// Settles what workers report.
#[async_trait]
pub trait Settlement: Send + Sync + 'static {
    /// OK when all reports are committed and their jobs acknowledged in the queue. After an error the same batch may be sent again;
    /// after `TOO_LARGE`, that is of no use.
    async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()>;
}

/// The role, for the log.
const DISPATCH: &str = "dispatch";
/// Batches under way on one stream, in each direction.
const WINDOW: usize = 16;

/// Who waits for the answer to which batch.
type Waiters = HashMap<u64, oneshot::Sender<Result<()>>>;
/// The same; none once the stream has ended, when nobody would be answered.
type Waiting = Arc<Mutex<Option<Waiters>>>;

/// Dispatch in another process. One stream carries all batches; it is opened when it is needed and again when it broke.
pub struct RemoteSettlement {
    client: SettlementServiceClient<InterceptedService<transport::Channel, Present>>,
    role: RoleChannel,
    stream: tokio::sync::Mutex<Option<Outbound>>,
    sequence: AtomicU64,
}

#[derive(Clone)]
struct Outbound {
    requests: mpsc::Sender<ReportAttemptsRequest>,
    waiting: Waiting,
}

impl Outbound {
    /// Whether answers may still come. Of a stream that dispatch ended, batches may be taken for a while longer.
    fn is_open(&self) -> bool {
        !self.requests.is_closed() && locked(&self.waiting).is_some()
    }

    /// Sends a batch and waits for its answer.
    async fn settle(&self, sequence: u64, reports: Vec<AttemptReport>) -> Result<()> {
        let broke = || Error::unavailable("the stream to dispatch broke");
        let (answer, answered) = oneshot::channel();
        locked(&self.waiting).as_mut().ok_or_else(broke)?.insert(sequence, answer);
        let sent = self.requests.send(ReportAttemptsRequest { sequence, reports }).await;
        let outcome = if sent.is_ok() { answered.await.unwrap_or_else(|_| Err(broke())) } else { Err(broke()) };
        if let Some(waiting) = locked(&self.waiting).as_mut() {
            waiting.remove(&sequence);
        }
        outcome
    }
}

impl RemoteSettlement {
    /// Over a channel, presenting the token. What it sends is bounded by its callers.
    #[must_use]
    pub fn new(role: RoleChannel, token: Option<InternalToken>) -> Self {
        let client = SettlementServiceClient::with_interceptor(role.channel(), Present(token));
        Self { client, role, stream: tokio::sync::Mutex::new(None), sequence: AtomicU64::new(0) }
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
            .map_err(|status| self.role.failed(DISPATCH, &status))?
            .into_inner();
        let open = Outbound { requests, waiting: Arc::new(Mutex::new(Some(HashMap::new()))) };
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
        let outcome = open.settle(self.sequence.fetch_add(1, Ordering::Relaxed), reports).await;
        if outcome.is_err() {
            self.forget(&open).await;
        }
        outcome
    }
}

fn locked(waiting: &Waiting) -> std::sync::MutexGuard<'_, Option<Waiters>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to those who wait; when the stream ends, tells all others why. That a batch was over the limit is told to all: which one
/// is not known.
async fn read_answers(mut answers: Streaming<ReportAttemptsResponse>, waiting: Waiting, role: RoleChannel) {
    let end = loop {
        let ReportAttemptsResponse { sequence, error } = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => break broken("dispatch ended it"),
            Err(status) => break ended(&status, &role),
        };
        if let Some(waiter) = locked(&waiting).as_mut().and_then(|waiting| waiting.remove(&sequence)) {
            let outcome = if error.is_empty() { Ok(()) } else { Err(Error::unavailable(error)) };
            // A waiter that gave up needs no answer.
            let _ = waiter.send(outcome);
        }
    };
    let left = locked(&waiting).take();
    for waiter in left.into_iter().flat_map(HashMap::into_values) {
        let _ = waiter.send(Err(end.clone()));
    }
}

/// Why dispatch ended a stream.
fn ended(status: &Status, role: &RoleChannel) -> Error {
    let why = cause::of_status(status);
    role.tell(DISPATCH, &why);
    let error = crate::from_status(status);
    if error.reason == Reason::TooLarge { error } else { broken(&why) }
}

fn broken(why: &str) -> Error {
    Error::unavailable(format!("the stream to dispatch broke: {why}"))
}

/// The gRPC face of a settlement. Its streams end at shutdown, when what they brought is settled: workers open others elsewhere.
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
    type ReportAttemptsStream = Pin<Box<dyn Stream<Item = Result<ReportAttemptsResponse, Status>> + Send>>;

    async fn report_attempts(
        &self,
        request: Request<Streaming<ReportAttemptsRequest>>,
    ) -> Result<Response<Self::ReportAttemptsStream>, Status> {
        let (answers, receiver) = mpsc::channel(WINDOW);
        tokio::spawn(serve_stream(Arc::clone(&self.settlement), self.shutdown.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Settles up to WINDOW batches of one stream at once, and answers each when it is done.
async fn serve_stream(
    settlement: Arc<dyn Settlement>,
    shutdown: CancellationToken,
    mut requests: Streaming<ReportAttemptsRequest>,
    answers: mpsc::Sender<Result<ReportAttemptsResponse, Status>>,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            request = requests.message(), if under_way.len() < WINDOW => match request {
                Ok(Some(ReportAttemptsRequest { sequence, reports })) => {
                    let settlement = Arc::clone(&settlement);
                    under_way.push(async move { (sequence, settlement.settle(reports).await) });
                }
                // Over the limit: the worker must know that sending it again is of no use.
                Err(status) if status.code() == Code::OutOfRange => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::info!(error = cause::of_status(&status), "a worker's stream of reports broke off");
                    break;
                }
            },
            Some((sequence, outcome)) = under_way.next() => {
                if answers.send(Ok(answer(sequence, outcome))).await.is_err() {
                    return;
                }
            }
        }
    }
    while let Some((sequence, outcome)) = under_way.next().await {
        if answers.send(Ok(answer(sequence, outcome))).await.is_err() {
            return;
        }
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

    /// Answers the first batch of each stream and ends its side, but goes on to take what comes, as a server does that ends.
    struct Ending;

    #[async_trait]
    impl SettlementService for Ending {
        type ReportAttemptsStream = Pin<Box<dyn Stream<Item = Result<ReportAttemptsResponse, Status>> + Send>>;

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
        let server = tonic::transport::Server::builder().add_service(SettlementServiceServer::new(Ending));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let remote = RemoteSettlement::new(crate::channel::channel(&url, None).unwrap(), None);
        let mut broken = 0;
        for _ in 0..200 {
            let settled = tokio::time::timeout(Duration::from_secs(10), remote.settle(Vec::new()));
            match settled.await.expect("an answer, or word that there is none") {
                Ok(()) => {}
                // The stream ended while the batch was on its way.
                Err(error) => broken += usize::from(error.to_string().contains("broke")),
            }
        }
        assert!(broken < 200, "the first batch of a stream is answered");
    }

    /// Keeps what it settles.
    #[derive(Default)]
    struct Keeping(Mutex<Vec<AttemptReport>>);

    #[async_trait]
    impl Settlement for Keeping {
        async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()> {
            self.0.lock().unwrap().extend(reports);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_batch_over_the_limit_of_dispatch_is_told_so_and_others_are_settled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Keeping::default());
        let service = SettlementServer::new(Arc::clone(&kept) as Arc<dyn Settlement>, CancellationToken::new());
        let service = SettlementServiceServer::new(service).max_decoding_message_size(20 << 20);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let remote = RemoteSettlement::new(crate::channel::channel(&url, None).unwrap(), None);
        let settle = async |bytes: usize| {
            let report = AttemptReport { delivery_id: vec![b'x'; bytes].into(), ..AttemptReport::default() };
            tokio::time::timeout(Duration::from_secs(20), remote.settle(vec![report])).await.expect("an answer")
        };
        settle(17 << 20).await.unwrap();
        assert_eq!(settle(21 << 20).await.unwrap_err().reason, Reason::TooLarge);
        settle(1).await.unwrap();
        let kept: Vec<_> = kept.0.lock().unwrap().iter().map(|report| report.delivery_id.len()).collect();
        assert_eq!(kept, [17 << 20, 1]);
    }
}
