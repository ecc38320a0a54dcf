//! The data that all tails of a process share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use outrider_model::{ProjectId, Result};
use outrider_shares::{Holder, Resource, Share, Shares, TurnResources, Turns};
use outrider_store::{Directory, LogKind, Store};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::options::Options;

/// How many bytes are loaded at once. A single larger item is loaded alone.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

const TAILS: Resource = Resource { name: "tails", noun: "tails", least: 1 };
const BYTES: Resource = Resource { name: "tail-bytes", noun: "bytes of tails", least: BATCH_BYTES };

const READS: TurnResources = TurnResources {
    slots: Resource { name: "tail-reads", noun: "queries of tails", least: 1 },
    line: Resource {
        name: "tail-reads-line",
        noun: "places in the line for queries of tails",
        least: 1,
    },
};

/// A log, by its kind and project.
type Log = (LogKind, ProjectId);

/// The readers to notify of news, for each log that is read.
type Readers = Mutex<HashMap<Log, watch::Sender<()>>>;

/// The data that all tails of a process share. A handle that is cheap to clone.
#[derive(Clone)]
pub struct Tails {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) heartbeat: Duration,
    poll: Duration,
    places: Shares,
    /// Bytes that were read and not sent.
    pub(super) room: Shares,
    /// Places for queries of tails, which must not take the connections that commits need. Each
    /// tail waits for its turn.
    pub(super) reads: Turns,
    readers: Readers,
    identity: OnceCell<i64>,
}

impl Tails {
    pub fn new(options: &Options, store: Store) -> Self {
        let inner = Inner {
            store,
            heartbeat: options.tail_heartbeat,
            poll: options.tail_poll,
            places: Shares::new(TAILS, options.max_tails),
            room: Shares::new(BYTES, options.tail_buffer_bytes),
            reads: Turns::new(READS, options.tail_readers, options.max_tails),
            readers: Mutex::default(),
            identity: OnceCell::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Wakes the readers of these logs after a commit of this process.
    pub fn committed(&self, kind: LogKind, projects: impl IntoIterator<Item = ProjectId>) {
        let readers = self.readers();
        if readers.is_empty() {
            return;
        }
        let mut last = None;
        for project in projects {
            // Most events of a batch belong to one project.
            if last.replace(project) != Some(project)
                && let Some(reader) = readers.get(&(kind, project))
            {
                reader.send_replace(());
            }
        }
    }

    /// Looks for commits of other processes until the task is aborted.
    pub async fn run(&self) {
        let mut period = tokio::time::interval(self.inner.poll);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut from = None;
        loop {
            period.tick().await;
            let logs: Vec<Log> = self.readers().keys().copied().collect();
            if logs.is_empty() {
                from = None;
                continue;
            }
            match self.inner.store.logged_since(from, logs).await {
                Ok((news, next)) => {
                    from = Some(next);
                    news.into_iter().for_each(|(kind, project)| self.committed(kind, [project]));
                }
                Err(error) => {
                    tracing::debug!(%error, "the log of commits was not read; the next poll reads \
                        it")
                }
            }
        }
    }

    /// Takes a place for one more tail, which is notified of news in its log.
    pub(super) fn enter(&self, log: Log, holder: Holder) -> Result<OpenTail> {
        let share = self.inner.places.take(holder, 1)?;
        let mut news =
            self.readers().entry(log).or_insert_with(|| watch::Sender::new(())).subscribe();
        news.mark_unchanged();
        Ok(OpenTail { tails: self.clone(), log, news, _share: share })
    }

    /// Returns the identity of the database.
    pub(super) async fn identity(&self) -> Result<i64> {
        self.inner.identity.get_or_try_init(|| self.inner.store.log_identity()).await.copied()
    }

    pub(super) fn readers(&self) -> std::sync::MutexGuard<'_, HashMap<Log, watch::Sender<()>>> {
        self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one open tail.
pub(super) struct OpenTail {
    tails: Tails,
    log: Log,
    pub(super) news: watch::Receiver<()>,
    _share: Share,
}

impl Drop for OpenTail {
    fn drop(&mut self) {
        let mut readers = self.tails.readers();
        // This tail is still counted.
        if readers.get(&self.log).is_some_and(|sender| sender.receiver_count() <= 1) {
            readers.remove(&self.log);
        }
    }
}

/// What opening a tail needs in addition to the request.
#[derive(Clone)]
pub struct Around {
    pub tails: Tails,
    pub directory: Directory,
    pub shutdown: CancellationToken,
}
