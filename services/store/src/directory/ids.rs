//! Which API keys there are, by their ids alone: a key that does not exist is refused from memory,
//! and an invented one is never in the way of one that exists.
//!
//! An id holds the time at which its key was made, by the database's clock. Once the feed was read
//! to its end, an id from before that which is not among those of the directory is of no key. Only
//! about a recent one is there doubt, until the feed is read again.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use outrider_model::{ApiKeyId, Result, Timestamp};

use crate::{Store, api_keys};

/// Ids that are read at once.
const PAGE: u64 = 10_000;
/// How long before the feed was read an id must have been made to be missed. A transaction takes
/// less, and so do the clocks of two processes differ.
const RECENT: Duration = Duration::from_secs(60);

/// Whether there is a key of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// There was one when the feed was read last.
    Listed,
    /// There is none.
    Unlisted,
    /// It may have been made since the feed was read last.
    Recent,
    /// The ids are not known, or too many.
    Unknown,
}

/// The ids of all keys that are not revoked.
pub(super) struct Ids {
    most: usize,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// The random half of each: 9 bytes for 16. Two keys that share it cost a question, no more.
    ids: HashSet<u64>,
    phase: Phase,
    /// Raised when what was read counts no more.
    generation: u64,
    /// When the feed was read to its end the last time: not before.
    read_at: Timestamp,
}

#[derive(Default)]
enum Phase {
    #[default]
    Absent,
    /// They are being read. Those of keys that were revoked meanwhile are not to come back.
    Reading(HashSet<u64>),
    Complete,
    TooMany,
}

fn short(id: ApiKeyId) -> u64 {
    id.0.as_u64_pair().1
}

impl Ids {
    /// At most so many; with 0 none are read.
    pub fn new(most: usize) -> Self {
        let phase = if most == 0 { Phase::TooMany } else { Phase::Absent };
        Self { most, state: RwLock::new(State { phase, ..State::default() }) }
    }

    pub fn entries(&self) -> u64 {
        self.read().ids.len() as u64
    }

    /// What is known of an id at this time.
    pub fn standing(&self, id: ApiKeyId, now: Timestamp) -> Standing {
        let state = self.read();
        if !matches!(state.phase, Phase::Complete) {
            return Standing::Unknown;
        }
        if state.ids.contains(&short(id)) {
            return Standing::Listed;
        }
        let old = id.time().plus(RECENT) < state.read_at;
        // No clock is ahead by so much.
        let invented = now.plus(RECENT) < id.time();
        if old || invented { Standing::Unlisted } else { Standing::Recent }
    }

    /// The feed was read to its end, from this time on.
    pub fn confirm(&self, at: Timestamp) {
        self.write().read_at = at;
    }

    /// A key was made.
    pub fn add(&self, id: ApiKeyId) {
        let mut state = self.write();
        if matches!(state.phase, Phase::Reading(_) | Phase::Complete) {
            state.ids.insert(short(id));
            self.bound(&mut state);
        }
    }

    /// A key was revoked.
    pub fn remove(&self, id: ApiKeyId) {
        let mut state = self.write();
        state.ids.remove(&short(id));
        if let Phase::Reading(revoked) = &mut state.phase {
            revoked.insert(short(id));
        }
    }

    /// What is known counts no more: the feed does not go on where it was.
    pub fn forget(&self) {
        let mut state = self.write();
        let phase = if self.most == 0 { Phase::TooMany } else { Phase::Absent };
        *state = State { generation: state.generation + 1, phase, ..State::default() };
    }

    /// Reads them, unless they are known. The feed must have been read before, and be followed
    /// meanwhile.
    pub async fn load(&self, store: &Store) -> Result<()> {
        let Some(generation) = self.begin() else { return Ok(()) };
        let outcome = self.read_all(store, generation).await;
        let mut state = self.write();
        if state.generation == generation && matches!(state.phase, Phase::Reading(_)) {
            state.phase = if outcome.is_ok() { Phase::Complete } else { Phase::Absent };
        }
        outcome
    }

    fn begin(&self) -> Option<u64> {
        let mut state = self.write();
        if !matches!(state.phase, Phase::Absent) {
            return None;
        }
        state.ids.clear();
        state.phase = Phase::Reading(HashSet::new());
        Some(state.generation)
    }

    async fn read_all(&self, store: &Store, generation: u64) -> Result<()> {
        let mut after = None;
        loop {
            let page = store.within(api_keys::ids(store.read(), after, PAGE)).await?;
            let mut state = self.write();
            if state.generation != generation {
                return Ok(());
            }
            let State { ids, phase: Phase::Reading(revoked), .. } = &mut *state else {
                return Ok(());
            };
            ids.extend(page.iter().map(|id| short(*id)).filter(|id| !revoked.contains(id)));
            self.bound(&mut state);
            match page.last() {
                Some(last) if page.len() as u64 == PAGE => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }

    fn bound(&self, state: &mut State) {
        if state.ids.len() > self.most {
            tracing::warn!(
                most = self.most,
                "there are more API keys than the directory knows by their ids"
            );
            (state.ids, state.phase) = (HashSet::new(), Phase::TooMany);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
