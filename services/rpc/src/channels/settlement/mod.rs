//! From workers to dispatch: one trait, both in process and over one gRPC stream.

mod wire;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{Stream, StreamExt, stream::FuturesUnordered};
use outrider_model::{Error, JobReport, Reason, Result};
use outrider_proto::internal::{
    AttemptReport, ReportAttemptsRequest, ReportAttemptsResponse,
    settlement_service_client::SettlementServiceClient,
    settlement_service_server::{SettlementService, SettlementServiceServer},
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
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()>;
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
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()> {
        let reports = reports.into_iter().map(wire::from_report).collect();
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
    async fn settle(&self, reports: Vec<JobReport>) -> Result<()> {
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

    /// Returns the gRPC service. Messages may have at most `max_bytes`.
    #[must_use]
    pub fn service(self, max_bytes: usize) -> SettlementServiceServer<Self> {
        SettlementServiceServer::new(self).max_decoding_message_size(max_bytes)
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
                    let reports = reports.into_iter().filter_map(readable).collect();
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

/// Converts a report. One that cannot be read is left out, because sending it again would not help.
fn readable(report: AttemptReport) -> Option<JobReport> {
    let report = wire::to_report(report);
    if report.is_none() {
        tracing::error!("a worker's report cannot be read; its job stays until its lease runs out");
    }
    report
}

fn answer(sequence: u64, outcome: Result<()>) -> ReportAttemptsResponse {
    let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    ReportAttemptsResponse { sequence, error }
}

#[cfg(test)]
mod tests;
