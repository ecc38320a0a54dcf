//! Slots for the connections of a listener. A connection whose caller is known keeps its slot. When
//! all other slots are taken, a new connection displaces the oldest of the other connections, so
//! that nobody can lock others out just by opening connections.
//!
//! If slots are divided, a caller keeps as many as its share allows ([`Shares`]). It may use more
//! while there is room, but such a connection is closed when others need its slot and no request is
//! in flight on it.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use outrider_shares::{Exhausted, Holder, Resource, Share, Shares};
use tokio_util::sync::CancellationToken;

/// The resource of a listener that is divided.
const CONNECTIONS: Resource = Resource { name: "connections", noun: "connections", least: 1 };

/// A bounded number of slots for connections.
#[derive(Debug, Clone)]
pub struct ConnectionSlots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// Number of slots that only connections that keep their slots may take.
    reserved: usize,
    /// The slots that each caller may keep. `None` if one caller may keep all.
    shares: Option<Shares>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Connections without a known caller, which may be displaced, oldest first.
    loose: BTreeMap<u64, CancellationToken>,
    /// Connections of known callers beyond their shares, oldest first.
    beyond: HashMap<Holder, BTreeMap<u64, BeyondShare>>,
    /// Number of connections in `beyond`.
    beyond_count: usize,
    kept: usize,
}

/// A connection beyond its caller's share.
#[derive(Debug)]
struct BeyondShare {
    displaced: CancellationToken,
    /// Number of requests in flight on it.
    in_flight: Arc<AtomicU64>,
}

/// A slot, held until it is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: Arc<Inner>,
    state: Mutex<SlotState>,
    is_kept: AtomicBool,
    displaced: CancellationToken,
    in_flight: Arc<AtomicU64>,
    /// Whether another connection was displaced for this one.
    pub displaced_another: bool,
}

#[derive(Debug)]
enum SlotState {
    Loose(u64),
    BeyondShare(Holder, u64),
    Kept { _share: Option<Share> },
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionSlots {
    /// Creates `most` slots, of which `reserved` are for connections that keep their slots. At
    /// least one slot is not reserved.
    #[must_use]
    pub fn new(most: usize, reserved: usize) -> Self {
        Self::of(most, reserved, None)
    }

    /// Like [`Self::new`], with slots divided among callers.
    #[must_use]
    pub fn divided(most: usize, reserved: usize) -> Self {
        Self::of(most, reserved, Some(Shares::new(CONNECTIONS, most.max(1))))
    }

    fn of(most: usize, reserved: usize, shares: Option<Shares>) -> Self {
        let most = most.max(1);
        Self(Arc::new(Inner {
            most,
            reserved: reserved.min(most - 1),
            shares,
            taken: Mutex::default(),
        }))
    }

    /// Returns the number of free slots.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.most.saturating_sub(locked(&self.0.taken).all())
    }

    /// Takes a slot for a new connection, if necessary from the oldest connection that may be
    /// displaced. Returns `None` if no connection may be displaced.
    #[must_use]
    pub fn take(&self) -> Option<ConnectionSlot> {
        let slots = &self.0;
        let mut taken = locked(&slots.taken);
        let mut displaced_another = false;
        while taken.all() >= slots.most || taken.loose.len() >= slots.most - slots.reserved {
            taken.displace(slots.most)?.cancel();
            displaced_another = true;
        }
        let displaced = CancellationToken::new();
        let number = taken.enter(displaced.clone());
        Some(ConnectionSlot {
            slots: Arc::clone(slots),
            state: Mutex::new(SlotState::Loose(number)),
            is_kept: AtomicBool::new(false),
            displaced,
            in_flight: Arc::default(),
            displaced_another,
        })
    }
}

impl Taken {
    fn all(&self) -> usize {
        self.loose.len() + self.beyond_count + self.kept
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, displaced: CancellationToken) -> u64 {
        let number = self.number();
        self.loose.insert(number, displaced);
        number
    }

    fn enter_beyond(&mut self, holder: Holder, beyond: BeyondShare) -> u64 {
        let number = self.number();
        self.beyond.entry(holder).or_default().insert(number, beyond);
        self.beyond_count += 1;
        number
    }

    /// Removes a connection. Returns false if it has been displaced.
    fn leave(&mut self, state: &SlotState) -> bool {
        match state {
            SlotState::Loose(number) => self.loose.remove(number).is_some(),
            SlotState::BeyondShare(holder, number) => self.leave_beyond(holder, *number).is_some(),
            SlotState::Kept { .. } => {
                self.kept -= 1;
                true
            }
        }
    }

    fn leave_beyond(&mut self, holder: &Holder, number: u64) -> Option<BeyondShare> {
        let of_holder = self.beyond.get_mut(holder)?;
        let left = of_holder.remove(&number)?;
        if of_holder.is_empty() {
            self.beyond.remove(holder);
        }
        self.beyond_count -= 1;
        Some(left)
    }

    /// Removes the connection that makes room for a new one: either one beyond its caller's share
    /// or one without a known caller, whichever are more.
    fn displace(&mut self, most: usize) -> Option<CancellationToken> {
        let full = self.all() >= most;
        if full && self.beyond_count > self.loose.len() {
            return self.displace_idle().or_else(|| self.displace_loose());
        }
        self.displace_loose().or_else(|| if full { self.displace_idle() } else { None })
    }

    fn displace_loose(&mut self) -> Option<CancellationToken> {
        self.loose.pop_first().map(|(_, displaced)| displaced)
    }

    /// Removes the oldest connection without a request, of the caller with the most connections
    /// beyond its share.
    fn displace_idle(&mut self) -> Option<CancellationToken> {
        let idle = |(holder, all): (&Holder, &BTreeMap<u64, BeyondShare>)| {
            let oldest =
                all.iter().find(|(_, beyond)| beyond.in_flight.load(Ordering::Acquire) == 0);
            oldest.map(|(number, _)| (all.len(), *holder, *number))
        };
        let (_, holder, number) =
            self.beyond.iter().filter_map(idle).max_by_key(|(count, ..)| *count)?;
        self.leave_beyond(&holder, number).map(|beyond| beyond.displaced)
    }
}

impl Inner {
    /// Returns how many connections may be beyond their callers' shares. They may not use the
    /// reserve.
    fn most_beyond(&self, taken: &Taken) -> usize {
        (self.most - self.reserved).saturating_sub(taken.kept)
    }
}

impl ConnectionSlot {
    /// Keeps the slot: from now on the connection is not displaced, unless that has happened
    /// already.
    pub fn keep(&self) {
        if self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        self.keep_with(&mut locked(&self.state), None);
    }

    fn keep_with(&self, state: &mut SlotState, share: Option<Share>) {
        if matches!(state, SlotState::Kept { .. }) {
            return;
        }
        let mut taken = locked(&self.slots.taken);
        if taken.leave(state) {
            taken.kept += 1;
            *state = SlotState::Kept { _share: share };
            self.is_kept.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps the slot if that is within the caller's share. Otherwise the connection is not
    /// displaced while a request is in flight on it. Fails if there is no room for that either:
    /// then the request must be refused.
    pub fn keep_for(&self, holder: Holder) -> Result<(), Exhausted> {
        if self.is_kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(shares) = &self.slots.shares else {
            self.keep();
            return Ok(());
        };
        let mut state = locked(&self.state);
        if shares.has_room(&holder)
            && let Ok(share) = shares.take(holder, 1)
        {
            self.keep_with(&mut state, Some(share));
            return Ok(());
        }
        if self.go_beyond(&mut state, holder) {
            return Ok(());
        }
        // Another connection may have given back its share in the meantime.
        let share = shares.take(holder, 1)?;
        self.keep_with(&mut state, Some(share));
        Ok(())
    }

    /// Uses the connection beyond its caller's share, if there is room.
    fn go_beyond(&self, state: &mut SlotState, holder: Holder) -> bool {
        let mut taken = locked(&self.slots.taken);
        let most = self.slots.most_beyond(&taken);
        match *state {
            SlotState::Kept { .. } => true,
            SlotState::BeyondShare(..) if taken.beyond_count <= most => true,
            SlotState::BeyondShare(..) => {
                // Callers within their shares may take the slot.
                if taken.leave(state) {
                    *state = SlotState::Loose(taken.enter(self.displaced.clone()));
                }
                false
            }
            SlotState::Loose(_) => {
                while taken.beyond_count >= most {
                    let Some(idle) = taken.displace_idle() else { return false };
                    idle.cancel();
                }
                if taken.leave(state) {
                    let beyond = BeyondShare {
                        displaced: self.displaced.clone(),
                        in_flight: Arc::clone(&self.in_flight),
                    };
                    *state = SlotState::BeyondShare(holder, taken.enter_beyond(holder, beyond));
                }
                true
            }
        }
    }

    /// Gives up keeping the slot: from now on the connection may be displaced, as the youngest.
    pub fn loosen(&self) {
        let mut state = locked(&self.state);
        if let SlotState::Kept { .. } = *state {
            let mut taken = locked(&self.slots.taken);
            taken.kept -= 1;
            *state = SlotState::Loose(taken.enter(self.displaced.clone()));
            self.is_kept.store(false, Ordering::Relaxed);
        }
    }

    /// Returns the counter of requests in flight on the connection, which the caller maintains.
    #[must_use]
    pub fn in_flight(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.in_flight)
    }

    /// Whether the caller of the connection is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(*locked(&self.state), SlotState::Loose(_))
    }

    /// Whether the connection has lost its slot.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.displaced.is_cancelled()
    }

    /// Resolves when the connection has lost its slot and must be closed.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + use<> {
        self.displaced.clone().cancelled_owned()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let state = locked(&self.state);
        locked(&self.slots.taken).leave(&state);
    }
}

#[cfg(test)]
mod tests;
