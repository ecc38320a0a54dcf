//! An upload: a separate task reads, calls and writes, so that a client may write for a while
//! before it reads.

use std::{future::pending, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream, stream::FuturesOrdered};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrider_model::{Error, Reason, text::span};
use outrider_shares::{Holder, Share, Shares};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    batch::{Batch, CallTemplate, write_error},
    lines::{Line, Lines},
};
use crate::{
    Options,
    exchange::{Shared, body, deadline},
};

/// Maximum number of chunks of results that wait, whatever their size.
const CHUNKS: usize = 1_024;

/// Results of a call with the room that they take while they wait, or the error if there are no
/// results at all.
type Chunk = Result<(Bytes, Room), Error>;
/// From the upload's own room, and from the room for all answers.
type Room = (OwnedSemaphorePermit, Share);

pub(super) struct Upload {
    caller: Arc<CallTemplate>,
    options: Options,
    request_id: Option<String>,
    /// When the client wants the upload to end.
    end: Option<Instant>,
    draining: BoxFuture<'static, ()>,
    lines: Lines,
    /// A line that did not fit into the batch.
    parked: Option<Line>,
    batch: Batch,
    /// When the next line must be complete. Set while the upload waits for nothing else.
    due: Option<Instant>,
    calls: FuturesOrdered<BoxFuture<'static, Result<Vec<u8>, Error>>>,
    /// Whether the first call succeeded. Until then it is the only call, and the answer can still
    /// be an error.
    begun: bool,
    /// Bytes of results that may wait.
    room: Arc<Semaphore>,
    /// Room for all answers that are not sent, and the caller whose share of it is used.
    unsent: Shares,
    holder: Holder,
    /// The error for an upload without lines.
    without_lines: Error,
    _place: Share,
}

impl Upload {
    pub(super) fn new(
        shared: &Shared,
        caller: CallTemplate,
        holder: Holder,
        request_id: Option<String>,
        end: Option<Instant>,
        (without_lines, place): (Error, Share),
    ) -> Self {
        let options = shared.options.clone();
        Self {
            caller: Arc::new(caller),
            request_id,
            end,
            draining: Box::pin(shared.draining()),
            lines: Lines::new(options.max_request_bytes),
            parked: None,
            batch: Batch::default(),
            due: None,
            calls: FuturesOrdered::new(),
            begun: false,
            room: Arc::new(Semaphore::new(
                options.upload_results_bytes.clamp(1, Semaphore::MAX_PERMITS),
            )),
            unsent: shared.unsent.clone(),
            holder,
            options,
            without_lines,
            _place: place,
        }
    }

    /// Starts the task and waits for the first results. The others follow in the stream. The task
    /// ends when the stream is dropped.
    pub(super) async fn start(
        self,
        body: Incoming,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + use<>, Error> {
        let (out, mut chunks) = mpsc::channel(CHUNKS);
        let task = AbortOnDropHandle::new(tokio::spawn(self.run(body, out)));
        let gone = || Error::internal("a fault of the server");
        let first = chunks.recv().await.ok_or_else(gone)??;
        let next = async |mut chunks: mpsc::Receiver<Chunk>| {
            let (bytes, _freed) = chunks.recv().await?.ok()?;
            Some((Ok(bytes), chunks))
        };
        let fault = stream::once(task).filter_map(async |ended| {
            ended.err().map(|_| Err(Status::internal("a fault of the server")))
        });
        Ok(Box::pin(stream::iter([Ok(first.0)]).chain(stream::unfold(chunks, next)).chain(fault)))
    }

    async fn run(mut self, mut body: Incoming, out: mpsc::Sender<Chunk>) {
        let end = self.end;
        let outcome = tokio::select! {
            outcome = self.pump(&mut body, &out) => outcome,
            () = sleep_until(end) => Err(deadline::passed()),
        };
        match outcome {
            Ok(()) => {}
            // The answer has begun, so its last line says why there are no more.
            Err(error) if self.begun => {
                let mut text = Vec::new();
                if write_error(&mut text, None, &error, self.request_id.as_deref()).is_ok() {
                    self.send(text, &out).await;
                }
            }
            Err(error) => {
                body::linger(&self.options, &mut body).await;
                let _ = out.send(Err(error)).await;
            }
        }
    }

    /// Reads, calls and sends until everything is answered.
    async fn pump(&mut self, body: &mut Incoming, out: &mpsc::Sender<Chunk>) -> Result<(), Error> {
        let mut ended: Option<Result<(), Error>> = None;
        loop {
            self.fill(ended.as_ref());
            let free = if self.begun { self.options.upload_calls.max(1) } else { 1 };
            if !self.batch.is_empty() && self.calls.len() < free {
                self.submit();
                continue;
            }
            if self.calls.is_empty()
                && let Some(outcome) = ended.take()
            {
                return if self.begun {
                    outcome
                } else {
                    outcome.and(Err(self.without_lines.clone()))
                };
            }
            let reads = ended.is_none() && !self.is_full();
            let due = self.due(reads);
            tokio::select! {
                biased;
                () = self.draining.as_mut(),
                    if ended.is_none() => ended = Some(Err(Error::shutting_down())),
                // Checked before the body, because a body that never pauses must not hide that the
                // time is up.
                () = sleep_until(due), if due.is_some() => ended = Some(Err(self.idle())),
                Some(results) = self.calls.next(), if !self.calls.is_empty() => {
                    let results = results?;
                    self.begun = true;
                    self.send(results, out).await;
                }
                frame = body.frame(), if reads => ended = self.take_all(frame, body),
            }
        }
    }

    /// Returns when the next line must be complete. No time counts while there are calls, because a
    /// client may wait for their results.
    fn due(&mut self, reads: bool) -> Option<Instant> {
        self.due = if reads && self.calls.is_empty() {
            Some(self.due.unwrap_or_else(|| Instant::now() + self.options.upload_idle_timeout))
        } else {
            None
        };
        self.due
    }

    fn idle(&self) -> Error {
        Error::new(
            Reason::StreamIdle,
            format!("no complete line arrived for {}", span(self.options.upload_idle_timeout)),
        )
    }

    /// Takes the first frame and all others that have arrived, up to the size of one batch, with or
    /// without complete lines. Returns the end of the body once it is reached.
    fn take_all(
        &mut self,
        first: Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>,
        body: &mut Incoming,
    ) -> Option<Result<(), Error>> {
        let (mut next, mut taken) = (first, 0);
        loop {
            match next {
                None => return Some(Ok(())),
                Some(Err(_)) => return Some(Err(body::broke_off())),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        taken += data.len();
                        self.lines.push(data);
                    }
                }
            }
            self.fill(None);
            if self.is_full() || taken >= self.options.upload_batch_bytes {
                return None;
            }
            next = body.frame().now_or_never()?;
        }
    }

    fn is_full(&self) -> bool {
        self.parked.is_some() || self.batch.len() >= self.caller.rule.max_entries
    }

    /// Moves lines into the batch while they fit. If the body ended well, this includes an
    /// unfinished last line.
    fn fill(&mut self, ended: Option<&Result<(), Error>>) {
        let whole = matches!(ended, Some(Ok(())));
        while self.batch.len() < self.caller.rule.max_entries {
            let line = self.parked.take().or_else(|| self.lines.next());
            let Some(line) = line.or_else(|| whole.then(|| self.lines.last()).flatten()) else {
                return;
            };
            let bytes = line.text.as_ref().map_or(0, Bytes::len);
            if !self.batch.is_empty()
                && self.batch.bytes() + bytes > self.options.upload_batch_bytes
            {
                self.parked = Some(line);
                return;
            }
            self.batch.add(line.number, bytes, line.text);
        }
    }

    fn submit(&mut self) {
        let (batch, caller, first) =
            (std::mem::take(&mut self.batch), Arc::clone(&self.caller), !self.begun);
        self.calls.push_back(Box::pin(async move { batch.run(&caller, first).await }));
    }

    /// Waits for room. Nothing more is read meanwhile.
    async fn send(&mut self, text: Vec<u8>, out: &mpsc::Sender<Chunk>) {
        let wanted = text.len().min(self.options.upload_results_bytes);
        let permits = Arc::clone(&self.room)
            .acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX))
            .await;
        if let Ok(permits) = permits {
            let share = self.unsent.wait(self.holder, text.len()).await;
            // If the receiver is gone, this task will end too.
            let _ = out.send(Ok((text.into(), (permits, share)))).await;
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}
