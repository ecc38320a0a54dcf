//! An open stream: events are read as far as the window permits, handed on in batches of the
//! available events, and acknowledged in order.

use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use outrider_model::{
    AdmittedEvent, Error, Principal, Project, ProjectId, Reason, Result, event::stream_key,
    text::span,
};
use outrider_proto::ingest::{
    NewEvent, PublishEventResponse, StreamEventsRequest, StreamEventsResponse, StreamOpen,
    StreamedEvent, stream_events_request::Kind,
};
use outrider_rpc::{http_status, request_errors::request_error};
use outrider_shares::{Holder, Share, Shares};
use outrider_telemetry::TraceContext;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{commit::PatientIntake, decisions::Decisions, streams::Streams};
use crate::{
    admission::{Admission, metrics, offer, schemas::Requester, validate},
    options::Options,
};

/// The outcomes of the events of one call.
type Call = BoxFuture<'static, Result<Vec<Result<PublishEventResponse>>>>;

pub struct Session<'a> {
    admission: &'a Admission,
    streams: &'a Arc<Streams>,
    principal: &'a Principal,
    options: &'a Options,
    open: StreamOpen,
    /// The project when the last event was read.
    project: Option<Arc<Project>>,
    /// The next sequence number, or `None` before the first.
    next: Option<u64>,
    batch: Vec<AdmittedEvent>,
    batch_bytes: usize,
    calls: FuturesOrdered<Call>,
    intake: Arc<PatientIntake>,
    decisions: Decisions,
    holder: Holder,
    /// Bytes of the events that are read and not decided.
    buffered: Share,
    /// Set when nothing more is read: the result of the stream, once all outcomes are sent.
    ending: Option<Result<()>>,
    /// When the stream ends regardless, and with which error unless there is one already. Outcomes
    /// that are not sent by then are not acknowledged.
    cut: Option<(Instant, Error)>,
    last_read: Instant,
    /// Since when there is a message and the client takes none.
    untaken_since: Option<Instant>,
}

/// Maximum size of the errors that wait to be sent, in bytes. While a client does not read what is
/// wrong with its events, no more of them are read.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

impl<'a> Session<'a> {
    pub fn new(
        admission: &'a Admission,
        streams: &'a Arc<Streams>,
        principal: &'a Principal,
        project: ProjectId,
        open: StreamOpen,
    ) -> Self {
        let (options, shutdown) = (admission.options(), streams.shutdown.clone());
        let holder = Holder::within(principal, project);
        Self {
            admission,
            streams,
            principal,
            intake: Arc::new(PatientIntake::new(admission, holder, shutdown)),
            options,
            open,
            project: None,
            next: None,
            batch: Vec::new(),
            batch_bytes: 0,
            calls: FuturesOrdered::new(),
            decisions: Decisions::default(),
            holder,
            buffered: streams.buffer.share(holder),
            ending: None,
            cut: None,
            last_read: Instant::now(),
            untaken_since: None,
        }
    }

    /// Serves until the client ends the stream, an error occurs, or the shutdown begins.
    pub async fn run<I>(
        mut self,
        mut inbound: I,
        out: mpsc::Sender<StreamEventsResponse>,
    ) -> Result<()>
    where
        I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
    {
        let streams = Arc::clone(self.streams);
        let alarm = tokio::time::sleep(self.options.stream_idle_timeout);
        tokio::pin!(alarm);
        loop {
            if !self.batch.is_empty() && self.calls.len() < self.options.stream_calls {
                self.submit();
            }
            if let Some(end) = self.ended() {
                return end;
            }
            self.untaken_since = self
                .decisions
                .has_message()
                .then(|| self.untaken_since.unwrap_or_else(Instant::now));
            let reads = self.reads();
            tokio::select! {
                biased;
                () = streams.shutdown.cancelled(), if self.cut.is_none() => self.shut_down(),
                permit = out.reserve(), if self.decisions.has_message() => match permit {
                    Ok(permit) => self.send(permit, &out),
                    // The client is gone.
                    Err(_) => return Ok(()),
                },
                Some(outcome) = self.calls.next(), if !self.calls.is_empty() => {
                    self.record(outcome);
                }
                read = readable(&streams.buffer, self.holder, &mut inbound), if reads => {
                    self.take_all(read, &mut inbound).await;
                }
                () = alarm.as_mut() => {
                    self.check_idle();
                    let since = self.untaken_since.unwrap_or(self.last_read).min(self.last_read);
                    let next = self.cut_at().unwrap_or(since + self.options.stream_idle_timeout);
                    alarm.as_mut().reset(next);
                }
            }
            if let Some(cut) = self.cut_at().filter(|cut| *cut < alarm.deadline()) {
                alarm.as_mut().reset(cut);
            }
        }
    }

    fn cut_at(&self) -> Option<Instant> {
        self.cut.as_ref().map(|(at, _)| *at)
    }

    /// Returns the result of the stream, if all messages are sent or the time is up.
    fn ended(&mut self) -> Option<Result<()>> {
        if self.batch.is_empty() && self.calls.is_empty() && !self.decisions.has_message() {
            return self.ending.take();
        }
        let (_, why) = self.cut.take_if(|(at, _)| *at <= Instant::now())?;
        Some(self.ending.take().unwrap_or(Ok(())).and(Err(why)))
    }

    fn shut_down(&mut self) {
        self.cut = Some((Instant::now() + self.options.stream_drain, Error::shutting_down()));
        self.ending.get_or_insert(Err(Error::shutting_down()));
    }

    /// Whether the window and the current batch have room.
    fn reads(&self) -> bool {
        self.ending.is_none()
            && self.decisions.len() < self.options.stream_window_events as usize
            && self.decisions.bytes() < self.options.stream_window_bytes
            && self.decisions.error_bytes() < MAX_ERROR_BYTES
            && self.batch.len() < self.options.stream_batch_events
            && self.batch_bytes < self.options.max_batch_bytes
    }

    /// Takes a message and all others that are available, so that events that arrive together are
    /// sent on together.
    async fn take_all<I>(
        &mut self,
        first: Option<Result<StreamEventsRequest, Status>>,
        inbound: &mut I,
    ) where
        I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
    {
        self.last_read = Instant::now();
        // Read once for all available messages, so that changed settings of the project take effect
        // on an open stream.
        self.project = match self.admission.project(self.principal, &self.open.project_id).await {
            Ok(project) => Some(project),
            Err(error) => return self.end(error.within("open")),
        };
        let mut message = first;
        loop {
            match message {
                Some(Ok(StreamEventsRequest { kind })) => self.take(kind),
                Some(Err(status)) => self.end(request_error(&status)),
                None => self.ending = Some(Ok(())),
            }
            if !self.reads() || !self.streams.buffer.has_room(&self.holder) {
                return;
            }
            match inbound.next().now_or_never() {
                Some(next) => message = next,
                None => return,
            }
        }
    }

    /// Stops reading, and ends with this error when all outcomes are sent.
    fn end(&mut self, error: Error) {
        self.ending = Some(Err(error));
    }

    fn take(&mut self, kind: Option<Kind>) {
        match kind {
            Some(Kind::Event(StreamedEvent { sequence, event, traceparent, tracestate })) => {
                let expected = self.next.unwrap_or(sequence.max(1));
                if sequence != expected {
                    let description = format!("is {sequence}; the next is {expected}");
                    return self.end(Error::field("event.sequence", description));
                }
                self.next = sequence.checked_add(1);
                if self.next.is_none() {
                    self.end(Error::field("event.sequence", "has no number after it"));
                }
                match event {
                    Some(event) => self.add(
                        sequence,
                        event,
                        TraceContext::parse(&traceparent, &tracestate).as_ref(),
                    ),
                    None => self.refuse(sequence, Error::field("event", "is required")),
                }
            }
            Some(Kind::Open(_)) => self.end(Error::field("open", "must be the first message only")),
            None => self.end(Error::field("event", "is required")),
        }
    }

    fn add(&mut self, sequence: u64, event: NewEvent, trace: Option<&TraceContext>) {
        let Some(project) = self.project.clone() else { return };
        let bytes = size_of(&event);
        let context = self.admission.context(self.principal, &project, trace);
        let checked = if event.idempotency_key.is_empty() {
            validate::event_of_stream(event, stream_key(&self.open.stream_id, sequence), &context)
        } else {
            validate::event(event, &context)
        };
        match checked {
            Ok(event) => {
                self.buffered.exceed(bytes);
                self.decisions.wait(sequence, bytes as u64, bytes);
                self.batch_bytes += bytes;
                self.batch.push(event);
            }
            Err(error) => self.refuse(sequence, error.within("event")),
        }
    }

    fn refuse(&mut self, sequence: u64, error: Error) {
        metrics::refused(&error, 1);
        self.decisions.refuse(sequence, error);
    }

    fn submit(&mut self) {
        let events = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(project) = self.project.clone() else { return };
        let requester = Requester::Stream(self.holder);
        let (schemas, intake) = (Arc::clone(self.admission.schemas()), Arc::clone(&self.intake));
        self.calls.push_back(Box::pin(async move {
            let count = events.len();
            let checked = events.into_iter().map(Ok).collect();
            let answers = offer::offer(&schemas, &*intake, &project, requester, checked, |_| {
                "event".to_owned()
            })
            .await;
            metrics::batch(count, &answers);
            answers
        }));
    }

    fn record(&mut self, outcome: Result<Vec<Result<PublishEventResponse>>>) {
        let outcome = outcome
            .and_then(|answers| answers.into_iter().try_for_each(|answer| self.decide(answer)));
        if let Err(error) = outcome {
            // Later events cannot be acknowledged. The client resends from here, and events that
            // are committed count once.
            self.calls = FuturesOrdered::new();
            self.batch.clear();
            self.buffered.shrink(self.buffered.amount());
            if !matches!(self.ending, Some(Err(_))) {
                self.end(error);
            }
        }
    }

    /// Records the outcome of an event, unless it is unknown.
    fn decide(&mut self, answer: Result<PublishEventResponse>) -> Result<()> {
        match answer {
            Err(error) if !is_final(&error) => return Err(error),
            Err(error) if error.reason == Reason::IdempotencyConflict => {
                let sequence = self.decisions.next_undecided();
                let message = format!(
                    "the idempotency key, or else sequence number {sequence} of this stream, was \
                     used with another event"
                );
                let freed =
                    self.decisions.decide(Err(Error::new(Reason::IdempotencyConflict, message)));
                self.buffered.shrink(freed);
            }
            decided => self.buffered.shrink(self.decisions.decide(decided)),
        }
        Ok(())
    }

    /// Sends the available messages, as far as the connection takes them.
    fn send(
        &mut self,
        permit: mpsc::Permit<'_, StreamEventsResponse>,
        out: &mpsc::Sender<StreamEventsResponse>,
    ) {
        let mut permit = Some(permit);
        while let Some(free) = permit.take().or_else(|| out.try_reserve().ok()) {
            let Some(message) = self.decisions.message() else { return };
            free.send(message);
            self.untaken_since = None;
        }
    }

    /// Ends an idle stream. A client is idle if it could send an event and does not; while its
    /// events are on their way, it is not idle. A client is also idle if it takes no messages. Such
    /// a stream is cut, because the client would not read its end either.
    fn check_idle(&mut self) {
        let timeout = self.options.stream_idle_timeout;
        let idle = |message| Error::new(Reason::StreamIdle, message);
        if self.untaken_since.is_some_and(|since| since.elapsed() >= timeout) {
            let why = idle(format!("no answer was taken for {}", span(timeout)));
            self.ending.get_or_insert_with(|| Err(why.clone()));
            self.cut = Some((Instant::now(), why));
        } else if self.last_read.elapsed() >= timeout {
            if self.ending.is_none() && self.decisions.len() == 0 {
                self.end(idle(format!("no message arrived for {}", span(timeout))));
            }
            self.last_read = Instant::now();
        }
    }
}

/// Returns the next message, once the caller's streams together hold less than they may.
async fn readable<I>(
    buffer: &Shares,
    holder: Holder,
    inbound: &mut I,
) -> Option<Result<StreamEventsRequest, Status>>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
{
    buffer.room(holder).await;
    inbound.next().await
}

/// Whether sending the same event again would have the same outcome.
fn is_final(error: &Error) -> bool {
    http_status(error.reason).is_client_error()
        && !error.is_overload()
        && error.reason != Reason::StreamIdle
}

/// Returns the estimated size of an event in memory.
fn size_of(event: &NewEvent) -> usize {
    /// Fields of fixed size, and the overhead of allocations.
    const FIXED: usize = 256;
    let maps = [&event.headers, &event.metadata].into_iter().flatten();
    event.payload.len() + maps.map(|(name, value)| name.len() + value.len()).sum::<usize>() + FIXED
}
