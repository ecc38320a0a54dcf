//! One tail: a stream of messages from a position in a log.

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

/// How many entries of the log are read at once.
const ENTRIES: usize = 512;
/// How many entries are loaded at once.
const LOOKED_UP: usize = 64;
/// The shortest time between two reads of the log by one tail, so commits in close succession are
/// read together.
const PACE: Duration = Duration::from_millis(20);
/// How long a tail that got no turn waits before it tries again.
const AGAIN: Duration = Duration::from_millis(200);
/// After how long without news the log is read again, to renew the cursor.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// Makes the items of a tail from entries of the log.
#[async_trait]
pub trait Source: Send + 'static {
    /// The item of an entry.
    type Item: Send + 'static;

    /// The log to read.
    const KIND: LogKind;

    /// Makes items of entries, beginning with the first, and leaves out those that do not match. It
    /// stops before the items exceed `limit` bytes together.
    async fn load(&mut self, entries: &[LogEntry], limit: usize) -> Result<Loaded<Self::Item>>;
}

/// The result of loading entries.
pub struct Loaded<T> {
    pub items: Vec<Item<T>>,
    /// How many entries were examined.
    pub taken: usize,
    /// The bytes of the first item, if there are no items because it exceeds the limit.
    pub wants: Option<usize>,
}

/// An item of a tail.
pub struct Item<T> {
    /// The position after it.
    pub after: LogPosition,
    pub what: T,
    /// About how many bytes it uses in memory.
    pub bytes: usize,
}

/// One message.
pub struct Message<T> {
    pub cursor: String,
    /// `None` in a heartbeat.
    pub item: Option<T>,
    /// The server's time.
    pub at: Timestamp,
}

/// A requested tail. The caller has checked what the principal may read.
pub struct Opening<S> {
    pub around: Around,
    pub holder: Holder,
    pub project: ProjectId,
    /// Empty means to begin now.
    pub cursor: String,
    pub source: S,
}

impl<S: Source> Opening<S> {
    /// Opens the tail. It begins with a heartbeat. An error is its last message.
    pub async fn open(
        self,
    ) -> Result<impl Stream<Item = Result<Message<S::Item>>> + Send + 'static> {
        let Self { around, holder, project, cursor, source } = self;
        let place = around.tails.enter((S::KIND, project), holder)?;
        let store = &around.tails.inner.store;
        let cursors = Cursors { kind: S::KIND, project, identity: around.tails.identity().await? };
        let from =
            if cursor.is_empty() { store.log_end(holder).await? } else { cursors.read(&cursor)? };
        // Fails at once if the cursor is no longer valid.
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
    /// The room of the loaded items and of the item that was sent last.
    room: Share,
    /// The bytes of the latter, which is in flight until the next message is requested.
    telling: usize,
    /// The bytes of room that the next load needs.
    wants: usize,
    place: OpenTail,
    cursors: Cursors,
    source: S,
    project: ProjectId,
    /// The position after the last item that was sent.
    told: LogPosition,
    /// The position after the last entry that was loaded.
    looked_at: LogPosition,
    /// The position after the last entry that was read from the log.
    read_to: LogPosition,
    /// Entries that were read from the log and not loaded.
    entries: VecDeque<LogEntry>,
    /// Items that were loaded and not sent.
    items: VecDeque<Item<S::Item>>,
    /// Whether the log had no more entries when it was last read. It is then not read again until
    /// there is news.
    complete: bool,
    heartbeat_at: Instant,
    /// The earliest time at which the log is read again.
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
            // Everything that was loaded has been sent or did not match.
            self.told = self.looked_at;
            if self.heartbeat_at <= Instant::now() {
                if !self.complete || !self.is_stale() {
                    return self.heartbeat().await;
                }
                // A cursor must not expire while nothing happens.
                self.complete = false;
            }
            let step = match (self.entries.is_empty(), self.complete) {
                (false, _) => self.look_up().await,
                (true, true) => self.wait().await,
                (true, false) => self.read().await,
            };
            match step {
                // The caller is using more than its share of the database, so the tail continues
                // later.
                Err(error) if error.is_overload() => tokio::time::sleep(AGAIN).await,
                step => step?,
            }
        }
    }

    /// Waits until there is news or a heartbeat is due.
    async fn wait(&mut self) -> Result<()> {
        tokio::select! {
            // The sender lives as long as this tail is open.
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

    /// Loads entries as soon as there is room for them. Returns earlier if a heartbeat is due.
    async fn look_up(&mut self) -> Result<()> {
        let inner = Arc::clone(&self.around.tails.inner);
        let room = tokio::select! {
            biased;
            // An item that is large in comparison with the room must also find some.
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

    /// Holds room for this many bytes, in place of the room that was held before.
    fn hold(&mut self, mut room: Share, bytes: usize) {
        room.shrink(room.amount().saturating_sub(bytes));
        room.exceed(bytes.saturating_sub(room.amount()));
        self.room = room;
    }

    /// Whether the log was last read long ago.
    fn is_stale(&self) -> bool {
        self.around.tails.inner.store.clock().now().since(self.told.at) > STALE_AFTER
    }

    /// The tail of a deleted project ends.
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
