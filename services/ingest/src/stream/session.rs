//! An open stream: what comes is read as far as the window goes, travels in batches of what is
//! there, and is acknowledged in order.

use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use outrider_model::{
    Error, Principal, Project, ProjectId, Reason, Result, event::stream_key, text::span,
};
use outrider_proto::{
    ingest::{
        NewEvent, PublishEventResponse, StreamEventsRequest, StreamEventsResponse, StreamOpen,
        StreamedEvent, stream_events_request::Kind,
    },
    internal::AcceptEvent,
};
use outrider_rpc::{http_status, wire::request_error};
use outrider_shares::{Holder, Share, Shares};
use outrider_telemetry::TraceContext;
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{commit::Patient, decisions::Decisions};
use crate::{Ingest, Options, admit, judge::Asker, measure, validate};

/// What became of the events of one call.
type Call = BoxFuture<'static, Result<Vec<Result<PublishEventResponse>>>>;

pub struct Session<'a> {
    ingest: &'a Ingest,
    principal: &'a Principal,
    options: &'a Options,
    open: StreamOpen,
    /// As it was when the last event was read.
    project: Option<Arc<Project>>,
    /// The sequence number that must come; none before the first.
    next: Option<u64>,
    batch: Vec<AcceptEvent>,
    batch_bytes: usize,
    calls: FuturesOrdered<Call>,
    intake: Arc<Patient>,
    decisions: Decisions,
    holder: Holder,
    /// Bytes of what is read and not decided.
    room: Share,
    /// Set when nothing more is read: what the stream ends with, once all that was read is told.
    ending: Option<Result<()>>,
    /// When it ends all the same, and with what unless there is an error already: what is not told
    /// is not acknowledged.
    cut: Option<(Instant, Error)>,
    last_read: Instant,
    /// Since when there is something to tell and the client takes nothing.
    untaken_since: Option<Instant>,
}

/// Bytes of errors that wait to be told. A client that does not hear what is wrong with its events
/// need not send more of them.
const MAX_ERROR_BYTES: u64 = 64 * 1024;

impl<'a> Session<'a> {
    pub fn new(
        ingest: &'a Ingest,
        principal: &'a Principal,
        project: ProjectId,
        open: StreamOpen,
    ) -> Self {
        let (options, shutdown) = (ingest.options(), ingest.streams().shutdown.clone());
        let holder = Holder::within(principal, project);
        Self {
            ingest,
            principal,
            intake: Arc::new(Patient::new(ingest, holder, shutdown)),
            options,
            open,
            project: None,
            next: None,
            batch: Vec::new(),
            batch_bytes: 0,
            calls: FuturesOrdered::new(),
            decisions: Decisions::default(),
            holder,
            room: ingest.streams().room.share(holder),
            ending: None,
            cut: None,
            last_read: Instant::now(),
            untaken_since: None,
        }
    }

    /// Serves until the client ends, something goes wrong, or the shutdown begins.
    pub async fn run<I>(
        mut self,
        mut inbound: I,
        out: mpsc::Sender<StreamEventsResponse>,
    ) -> Result<()>
    where
        I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
    {
        let streams = Arc::clone(self.ingest.streams());
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
                place = out.reserve(), if self.decisions.has_message() => match place {
                    Ok(place) => self.tell(place, &out),
                    // The client is gone.
                    Err(_) => return Ok(()),
                },
                Some(outcome) = self.calls.next(), if !self.calls.is_empty() => self.record(outcome),
                read = readable(&streams.room, self.holder, &mut inbound), if reads => self.take_all(read, &mut inbound).await,
                () = alarm.as_mut() => {
                    self.check_idle();
                    let since = self.untaken_since.unwrap_or(self.last_read).min(self.last_read);
                    alarm.as_mut().reset(self.cut_at().unwrap_or(since + self.options.stream_idle_timeout));
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

    /// What to end with, when everything is told or the time is up.
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

    /// Whether the window has room and the batch in the making too.
    fn reads(&self) -> bool {
        self.ending.is_none()
            && self.decisions.len() < self.options.stream_window_events as usize
            && self.decisions.bytes() < self.options.stream_window_bytes
            && self.decisions.error_bytes() < MAX_ERROR_BYTES
            && self.batch.len() < self.options.stream_batch_events
            && self.batch_bytes < self.ingest.max_batch_bytes()
    }

    /// Takes a message and whatever else is there already, so that what arrives together travels
    /// together.
    async fn take_all<I>(
        &mut self,
        first: Option<Result<StreamEventsRequest, Status>>,
        inbound: &mut I,
    ) where
        I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
    {
        self.last_read = Instant::now();
        // Asked once for all that is there: settings of the project that change take effect on an
        // open stream.
        self.project = match self.ingest.project(self.principal, &self.open.project_id).await {
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
            if !self.reads() || !self.ingest.streams().room.has_room(&self.holder) {
                return;
            }
            match inbound.next().now_or_never() {
                Some(next) => message = next,
                None => return,
            }
        }
    }

    /// Reads no more, and ends with this error when all that was read is told.
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
        let context = self.ingest.context(self.principal, &project, trace);
        let checked = if event.idempotency_key.is_empty() {
            validate::event_of_stream(event, stream_key(&self.open.stream_id, sequence), &context)
        } else {
            validate::event(event, &context)
        };
        match checked {
            Ok(event) => {
                self.room.exceed(bytes);
                self.decisions.wait(sequence, bytes as u64, bytes);
                self.batch_bytes += bytes;
                self.batch.push(event);
            }
            Err(error) => self.refuse(sequence, error.within("event")),
        }
    }

    fn refuse(&mut self, sequence: u64, error: Error) {
        measure::refused(&error, 1);
        self.decisions.refuse(sequence, error);
    }

    fn submit(&mut self) {
        let events = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Some(project) = self.project.clone() else { return };
        let asker = Asker::Stream(self.holder);
        let (judge, intake) = (Arc::clone(self.ingest.judge()), Arc::clone(&self.intake));
        self.calls.push_back(Box::pin(async move {
            let count = events.len();
            let checked = events.into_iter().map(Ok).collect();
            let answers =
                admit::admit(&judge, &*intake, &project, asker, checked, |_| "event".to_owned())
                    .await;
            measure::batch(count, &answers);
            answers
        }));
    }

    fn record(&mut self, outcome: Result<Vec<Result<PublishEventResponse>>>) {
        let outcome = outcome
            .and_then(|answers| answers.into_iter().try_for_each(|answer| self.decide(answer)));
        if let Err(error) = outcome {
            // What comes after it cannot be acknowledged: the client resends from here, and what is
            // committed counts once.
            self.calls = FuturesOrdered::new();
            self.batch.clear();
            self.room.shrink(self.room.amount());
            if !matches!(self.ending, Some(Err(_))) {
                self.end(error);
            }
        }
    }

    /// Notes what became of an event, unless nobody knows.
    fn decide(&mut self, answer: Result<PublishEventResponse>) -> Result<()> {
        match answer {
            Err(error) if !is_final(&error) => return Err(error),
            Err(error) if error.reason == Reason::IdempotencyConflict => {
                let sequence = self.decisions.next_undecided();
                let message = format!(
                    "the idempotency key, or else sequence number {sequence} of this stream, was used with another event"
                );
                let freed =
                    self.decisions.decide(Err(Error::new(Reason::IdempotencyConflict, message)));
                self.room.shrink(freed);
            }
            decided => self.room.shrink(self.decisions.decide(decided)),
        }
        Ok(())
    }

    /// Tells what there is, as far as the connection takes it.
    fn tell(
        &mut self,
        place: mpsc::Permit<'_, StreamEventsResponse>,
        out: &mpsc::Sender<StreamEventsResponse>,
    ) {
        let mut place = Some(place);
        while let Some(free) = place.take().or_else(|| out.try_reserve().ok()) {
            let Some(message) = self.decisions.message() else { return };
            free.send(message);
            self.untaken_since = None;
        }
    }

    /// A client is idle that could send something, not one whose events are on their way; so is one
    /// that takes no answer, which would not hear of its end either: it is cut.
    fn check_idle(&mut self) {
        let timeout = self.options.stream_idle_timeout;
        let idle = |message| Error::new(Reason::StreamIdle, message);
        if self.untaken_since.is_some_and(|since| since.elapsed() >= timeout) {
            let why = idle(format!("no answer was taken for {}", span(timeout)));
            self.ending.get_or_insert_with(|| Err(why.clone()));
            self.cut = Some((Instant::now(), why));
        } else if self.last_read.elapsed() >= timeout {
            if self.ending.is_none() && self.decisions.len() == 0 {
                self.end(idle(format!("no message came for {}", span(timeout))));
            }
            self.last_read = Instant::now();
        }
    }
}

/// The next message, once the caller's streams hold less than they may together.
async fn readable<I>(
    room: &Shares,
    holder: Holder,
    inbound: &mut I,
) -> Option<Result<StreamEventsRequest, Status>>
where
    I: Stream<Item = Result<StreamEventsRequest, Status>> + Unpin,
{
    room.room(holder).await;
    inbound.next().await
}

/// Whether sending the same again would give the same.
fn is_final(error: &Error) -> bool {
    http_status(error.reason).is_client_error()
        && !error.is_overload()
        && error.reason != Reason::StreamIdle
}

/// About what an event holds in memory.
fn size_of(event: &NewEvent) -> usize {
    /// The fields of fixed size and what allocations cost beside.
    const FIXED: usize = 256;
    let maps = [&event.headers, &event.metadata].into_iter().flatten();
    event.payload.len() + maps.map(|(name, value)| name.len() + value.len()).sum::<usize>() + FIXED
}
