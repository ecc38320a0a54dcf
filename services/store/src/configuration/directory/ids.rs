//! The ids of all API keys. With them, a key that does not exist is refused from memory, and
//! invented keys never delay one that exists.
//!
//! An id contains the time at which its key was created, by the database's clock. Once the feed has
//! been read to its end, an older id that is not in the list belongs to no key. Only for a recent
//! id this is unknown until the feed is read again.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use outrider_model::{ApiKeyId, Result, Timestamp};

use crate::{Store, configuration::api_keys};

/// Number of ids that are read at once.
const PAGE: u64 = 10_000;
/// How long before a reading of the feed an id must have been created, if its absence from the list
/// proves that it belongs to no key. Transactions are shorter, and the clocks of two processes
/// differ by less.
const RECENT: Duration = Duration::from_secs(60);

/// Whether an id belongs to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyStatus {
    /// It did when the feed was last read.
    Listed,
    /// It does not.
    Unlisted,
    /// Its key may have been created since the feed was last read.
    Recent,
    /// The ids are not known, or there are too many.
    Unknown,
}

/// The ids of all keys that are not revoked.
pub(super) struct Ids {
    most: usize,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// The random half of each id, which takes 9 bytes instead of 16. Two keys that share it only
    /// cost a query.
    ids: HashSet<u64>,
    phase: Phase,
    /// Incremented when what was read becomes invalid.
    generation: u64,
    /// A lower bound for the last time at which the feed was read to its end.
    read_at: Timestamp,
}

#[derive(Default)]
enum Phase {
    #[default]
    Absent,
    /// The ids are being read. Holds those of keys that were revoked meanwhile, which must not come
    /// back.
    Reading(HashSet<u64>),
    Complete,
    TooMany,
}

fn short(id: ApiKeyId) -> u64 {
    id.0.as_u64_pair().1
}

impl Ids {
    /// Keeps up to `most` ids. With 0 none are read.
    pub fn new(most: usize) -> Self {
        let phase = if most == 0 { Phase::TooMany } else { Phase::Absent };
        Self { most, state: RwLock::new(State { phase, ..State::default() }) }
    }

    pub fn entries(&self) -> u64 {
        self.read().ids.len() as u64
    }

    /// What is known about an id at this time.
    pub fn status(&self, id: ApiKeyId, now: Timestamp) -> KeyStatus {
        let state = self.read();
        if !matches!(state.phase, Phase::Complete) {
            return KeyStatus::Unknown;
        }
        if state.ids.contains(&short(id)) {
            return KeyStatus::Listed;
        }
        let old = id.time().plus(RECENT) < state.read_at;
        // No clock is that far ahead.
        let invented = now.plus(RECENT) < id.time();
        if old || invented { KeyStatus::Unlisted } else { KeyStatus::Recent }
    }

    /// Notes that a reading of the feed that began at this time reached its end.
    pub fn confirm(&self, at: Timestamp) {
        self.write().read_at = at;
    }

    /// Adds a new key.
    pub fn add(&self, id: ApiKeyId) {
        let mut state = self.write();
        if matches!(state.phase, Phase::Reading(_) | Phase::Complete) {
            state.ids.insert(short(id));
            self.bound(&mut state);
        }
    }

    /// Removes a revoked key.
    pub fn remove(&self, id: ApiKeyId) {
        let mut state = self.write();
        state.ids.remove(&short(id));
        if let Phase::Reading(revoked) = &mut state.phase {
            revoked.insert(short(id));
        }
    }

    /// Drops everything, because the feed does not continue where it was.
    pub fn forget(&self) {
        let mut state = self.write();
        let phase = if self.most == 0 { Phase::TooMany } else { Phase::Absent };
        *state = State { generation: state.generation + 1, phase, ..State::default() };
    }

    /// Reads the ids, unless they are known. The feed must have been read before, and must be
    /// followed meanwhile.
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
                "there are more API keys than the directory keeps ids of"
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
