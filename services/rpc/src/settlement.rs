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
use outrider_model::{Error, Result};
use outrider_proto::internal::{
    AttemptReport, ReportAttemptsRequest, ReportAttemptsResponse, settlement_service_client::SettlementServiceClient,
    settlement_service_server::SettlementService,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService, transport::Channel};

use crate::internal::{InternalToken, Present};

/// Settles what workers report.
#[async_trait]
pub trait Settlement: Send + Sync + 'static {
    /// OK when all reports are committed and their jobs acknowledged in the queue. After an error the same batch may be sent again.
    async fn settle(&self, reports: Vec<AttemptReport>) -> Result<()>;
}

/// Batches under way on one stream, in each direction.
const WINDOW: usize = 16;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<()>>>>>;

/// Dispatch in another process. One stream carries all batches; it is opened when it is needed and again when it broke.
pub struct RemoteSettlement {
    client: SettlementServiceClient<InterceptedService<Channel, Present>>,
    stream: tokio::sync::Mutex<Option<Outbound>>,
    sequence: AtomicU64,
}

#[derive(Clone)]
struct Outbound {
    requests: mpsc::Sender<ReportAttemptsRequest>,
    waiting: Waiting,
}

impl RemoteSettlement {
    /// Over a channel, presenting the token; messages up to `max_bytes`.
    #[must_use]
    pub fn new(channel: Channel, token: Option<InternalToken>, max_bytes: usize) -> Self {
        let client = SettlementServiceClient::with_interceptor(channel, Present(token))
            .max_encoding_message_size(max_bytes)
            .max_decoding_message_size(max_bytes);
        Self { client, stream: tokio::sync::Mutex::new(None), sequence: AtomicU64::new(0) }
    }

    async fn outbound(&self) -> Result<Outbound> {
        let mut stream = self.stream.lock().await;
        if let Some(open) = stream.as_ref().filter(|open| !open.requests.is_closed()) {
            return Ok(open.clone());
        }
        let (requests, receiver) = mpsc::channel(WINDOW);
        let answers = self
            .client
            .clone()
            .report_attempts(ReceiverStream::new(receiver))
            .await
            .map_err(|status| crate::from_status(&status))?
            .into_inner();
        let open = Outbound { requests, waiting: Waiting::default() };
        tokio::spawn(read_answers(answers, Arc::clone(&open.waiting)));
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
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        locked(&open.waiting).insert(sequence, answer);
        let sent = open.requests.send(ReportAttemptsRequest { sequence, reports }).await;
        let outcome = match sent {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(Error::unavailable("the stream to dispatch broke"))),
            Err(_) => Err(Error::unavailable("the stream to dispatch broke")),
        };
        if outcome.is_err() {
            locked(&open.waiting).remove(&sequence);
            self.forget(&open).await;
        }
        outcome
    }
}

fn locked(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<()>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands answers to those who wait; when the stream ends, drops all waiters, who then see that it broke.
async fn read_answers(mut answers: Streaming<ReportAttemptsResponse>, waiting: Waiting) {
    while let Ok(Some(ReportAttemptsResponse { sequence, error })) = answers.message().await {
        if let Some(waiter) = locked(&waiting).remove(&sequence) {
            let outcome = if error.is_empty() { Ok(()) } else { Err(Error::unavailable(error)) };
            // A waiter that gave up needs no answer.
            let _ = waiter.send(outcome);
        }
    }
    locked(&waiting).clear();
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
                Ok(None) | Err(_) => break,
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
