//! One tail: from a place in a log to a stream of messages.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{Stream, stream};
use outrider_model::{Error, ProjectId, Result, Timestamp};
use outrider_shares::{Holder, Share};
use outrider_store::{LogEntry, LogKind, LogPosition};
use tokio::time::Instant;

use super::{
    cursor::Cursors,
    tails::{Around, BATCH_BYTES, OpenTail},
};

/// Entries of the log read at once.
const ENTRIES: usize = 512;
/// Entries looked up at once.
const LOOKED_UP: usize = 64;
/// Between two looks at the log by one tail: commits that follow each other closely are read
/// together.
const PACE: Duration = Duration::from_millis(20);
/// Before a tail that had no turn asks again.
const AGAIN: Duration = Duration::from_millis(200);
/// After so long the log is read again for the sake of the cursor.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// What a tail tells, made of entries of the log.
#[async_trait]
pub trait Source: Send + 'static {
    /// What is told of an entry.
    type Item: Send + 'static;

    /// Which log.
    const KIND: LogKind;

    /// Makes items of some entries, from the first on, and leaves out what is not wanted. It goes
    /// as far as the items have no more than `limit` bytes together.
    async fn load(&mut self, entries: &[LogEntry], limit: usize) -> Result<Loaded<Self::Item>>;
}

/// What became of entries.
pub struct Loaded<T> {
    pub items: Vec<Item<T>>,
    /// How many entries were looked at.
    pub taken: usize,
    /// Where there are no items since the first has more bytes than the limit: how many it has.
    pub wants: Option<usize>,
}

/// What is told.
pub struct Item<T> {
    /// The place after it.
    pub after: LogPosition,
    pub what: T,
    /// About what it holds in memory.
    pub bytes: usize,
}

/// One message.
pub struct Message<T> {
    pub cursor: String,
    /// None in a heartbeat.
    pub item: Option<T>,
    /// The server's time.
    pub at: Timestamp,
}

/// A tail that is asked for. Who may read what is checked before.
pub struct Opening<S> {
    pub around: Around,
    pub holder: Holder,
    pub project: ProjectId,
    /// Empty to begin now.
    pub cursor: String,
    pub source: S,
}

impl<S: Source> Opening<S> {
    /// Opens it: a heartbeat at once, then what comes. An error is the last that it says.
    pub async fn open(
        self,
    ) -> Result<impl Stream<Item = Result<Message<S::Item>>> + Send + 'static> {
        let Self { around, holder, project, cursor, source } = self;
        let place = around.tails.enter((S::KIND, project), holder)?;
        let store = &around.tails.inner.store;
        let cursors = Cursors { kind: S::KIND, project, identity: around.tails.identity().await? };
        let from =
            if cursor.is_empty() { store.log_end(holder).await? } else { cursors.read(&cursor)? };
        // Says at once whether the cursor is still good.
        store.read_log(holder, S::KIND, project, from, 1).await?;
        let now = Instant::now();
        let tail = Tail {
            room: around.tails.inner.room.share(holder),
            holder,
            wants: BATCH_BYTES,
            telling: 0,
            around,
            place,
            cursors,
            source,
            project,
            told: from,
            looked_at: from,
            read_to: from,
            entries: VecDeque::new(),
            items: VecDeque::new(),
            complete: false,
            heartbeat_at: now,
            look_at: now,
        };
        Ok(stream::unfold(Some(tail), |tail| async move {
            let mut tail = tail?;
            let next = tail.next().await;
            let rest = next.is_ok().then_some(tail);
            Some((next, rest))
        }))
    }
}

struct Tail<S: Source> {
    around: Around,
    holder: Holder,
    /// Bytes of the items, and of the one that was told last.
    room: Share,
    /// Those of the latter: they are on their way until the next message is asked for.
    telling: usize,
    /// Bytes of room that the next look-up needs.
    wants: usize,
    place: OpenTail,
    cursors: Cursors,
    source: S,
    project: ProjectId,
    /// The place after what was told.
    told: LogPosition,
    /// The place after what was made into items.
    looked_at: LogPosition,
    /// The place after what was read from the log.
    read_to: LogPosition,
    /// Read from the log and not looked up.
    entries: VecDeque<LogEntry>,
    /// Looked up and not told.
    items: VecDeque<Item<S::Item>>,
    /// Whether the log had no more when it was last read: then something must happen before it is
    /// read again.
    complete: bool,
    heartbeat_at: Instant,
    /// Not before then is the log read again.
    look_at: Instant,
}

impl<S: Source> Tail<S> {
    async fn next(&mut self) -> Result<Message<S::Item>> {
        let shutdown = self.around.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(Error::shutting_down()),
            message = self.next_while_up() => message,
        }
    }

    async fn next_while_up(&mut self) -> Result<Message<S::Item>> {
        self.room.shrink(std::mem::take(&mut self.telling));
        loop {
            if let Some(Item { after, what, bytes }) = self.items.pop_front() {
                (self.told, self.telling) = (after, bytes);
                return Ok(self.message(Some(what)));
            }
            // All that was looked at is told, or was not wanted.
            self.told = self.looked_at;
            if self.heartbeat_at <= Instant::now() {
                if !self.complete || !self.is_stale() {
                    return self.heartbeat().await;
                }
                // A cursor must not grow old while nothing happens.
                self.complete = false;
            }
            let step = match (self.entries.is_empty(), self.complete) {
                (false, _) => self.look_up().await,
                (true, true) => self.wait().await,
                (true, false) => self.read().await,
            };
            match step {
                // Its caller asks for more than its share of the database: the tail goes on later.
                Err(error) if error.is_overload() => tokio::time::sleep(AGAIN).await,
                step => step?,
            }
        }
    }

    /// Until there is news or a heartbeat is due.
    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            // The sender lives as long as this tail's place.
            _ = self.place.news.changed() => self.complete = false,
            () = tokio::time::sleep_until(self.heartbeat_at) => {}
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        tokio::time::sleep_until(self.look_at).await;
        self.place.news.mark_unchanged();
        let inner = &self.around.tails.inner;
        let _turn = inner.reads.wait(self.holder).await;
        let page = inner
            .store
            .read_log(self.holder, S::KIND, self.project, self.looked_at, ENTRIES)
            .await?;
        self.look_at = Instant::now() + PACE;
        self.complete = page.complete;
        self.read_to = page.next;
        if page.entries.is_empty() {
            self.looked_at = page.next;
        }
        self.entries = page.entries.into();
        Ok(())
    }

    /// Makes items of entries, once there is room for them or else a heartbeat is due.
    async fn look_up(&mut self) -> Result<()> {
        let inner = Arc::clone(&self.around.tails.inner);
        let room = tokio::select! {
            biased;
            // One that is large beside the room must find some, too.
            room = inner.room.wait(self.holder, self.wants.min(inner.room.most() / 2)) => room,
            () = tokio::time::sleep_until(self.heartbeat_at) => return Ok(()),
        };
        let _turn = inner.reads.wait(self.holder).await;
        let entries = self.entries.make_contiguous();
        let Loaded { items, taken, wants } =
            self.source.load(&entries[..entries.len().min(LOOKED_UP)], self.wants).await?;
        self.wants = wants.unwrap_or(BATCH_BYTES);
        self.hold(room, items.iter().map(|item| item.bytes).sum());
        let last = self.entries.drain(..taken).next_back();
        if let Some(last) = last {
            self.looked_at = if self.entries.is_empty() { self.read_to } else { last.next };
        }
        self.items = items.into();
        Ok(())
    }

    /// Holds room for so many bytes, in the place of what was held.
    fn hold(&mut self, mut room: Share, bytes: usize) {
        room.shrink(room.amount().saturating_sub(bytes));
        room.exceed(bytes.saturating_sub(room.amount()));
        self.room = room;
    }

    /// Whether the last look at the log is long ago.
    fn is_stale(&self) -> bool {
        self.around.tails.inner.store.clock().now().since(self.told.at) > STALE_AFTER
    }

    /// A project that is deleted has no more to tell.
    async fn heartbeat(&mut self) -> Result<Message<S::Item>> {
        if !self.around.directory.project_exists(self.project).await? {
            return Err(Error::not_found("project"));
        }
        Ok(self.message(None))
    }

    fn message(&mut self, item: Option<S::Item>) -> Message<S::Item> {
        let inner = &self.around.tails.inner;
        self.heartbeat_at = Instant::now() + inner.heartbeat;
        Message { cursor: self.cursors.write(self.told), item, at: inner.store.clock().now() }
    }
}
