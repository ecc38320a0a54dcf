//! One upload: a task that reads, calls and writes, apart from the connection, so that a client may
//! write for a while before it reads.

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
    batch::{Batch, Caller, write_error},
    lines::{Line, Lines},
};
use crate::{
    Options,
    exchange::{Shared, body, deadline},
};

/// Chunks of results that wait, whatever their size.
const CHUNKS: usize = 1_024;

/// Results of a call with the room they take while they wait, or why there are none at all.
type Chunk = Result<(Bytes, Room), Error>;
/// Of the upload's own room, and of that for all answers.
type Room = (OwnedSemaphorePermit, Share);

pub(super) struct Upload {
    caller: Arc<Caller>,
    options: Options,
    request_id: Option<String>,
    /// When the client wants it to end.
    end: Option<Instant>,
    draining: BoxFuture<'static, ()>,
    lines: Lines,
    /// A line that did not fit the batch any more.
    parked: Option<Line>,
    batch: Batch,
    /// When the next line must be whole, while nothing but that is waited for.
    due: Option<Instant>,
    calls: FuturesOrdered<BoxFuture<'static, Result<Vec<u8>, Error>>>,
    /// Whether the first call succeeded: before, it is the only one, and the answer can still be an
    /// error.
    begun: bool,
    /// Bytes of results that may wait.
    room: Arc<Semaphore>,
    /// Room for all answers that are not sent, and whose they are.
    unsent: Shares,
    holder: Holder,
    /// What an upload without any line is answered.
    without_lines: Error,
    _place: Share,
}

impl Upload {
    pub(super) fn new(
        shared: &Shared,
        caller: Caller,
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

    /// Begins, and waits for the first results; the others follow. The task ends when what this
    /// gives is dropped.
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
            // The answer has begun: its last line says why there are no more.
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
                // Before the body: one that never stops must not hide that the time is up.
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

    /// When the next line must be whole. A client may wait for the results of what it sent: no time
    /// counts while there are calls.
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
            format!("no whole line came for {}", span(self.options.upload_idle_timeout)),
        )
    }

    /// Takes what came and what else is there, as far as one batch goes, lines or not; the end,
    /// when it is reached.
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

    /// Moves lines to the batch while they fit; the last, unfinished one too when the body has
    /// ended well.
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

    /// Waits for room; the upload is read no further meanwhile.
    async fn send(&mut self, text: Vec<u8>, out: &mpsc::Sender<Chunk>) {
        let wanted = text.len().min(self.options.upload_results_bytes);
        let permits = Arc::clone(&self.room)
            .acquire_many_owned(u32::try_from(wanted).unwrap_or(u32::MAX))
            .await;
        if let Ok(permits) = permits {
            let share = self.unsent.wait(self.holder, text.len()).await;
            // Whoever does not take it is gone, and so will this task be.
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
