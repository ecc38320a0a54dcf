//! Places for the connections of a listener. Those that have shown whose they are keep theirs; when
//! all others are taken, a new connection gets that of the oldest of these, so that nobody keeps
//! others out by connections alone.
//!
//! Where places are divided, a caller keeps as many as its share has ([`Shares`]). What it has
//! beyond that it may use while there is room: such a connection is closed when others need its
//! place and no request on it is under way.

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

/// What is divided of a listener.
const CONNECTIONS: Resource = Resource { name: "connections", noun: "connections", least: 1 };

/// A bounded number of places.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// How many of them only connections that keep theirs may take.
    reserved: usize,
    /// How many of them each caller may keep; none where all may be kept by one.
    shares: Option<Shares>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Connections that may be displaced, the oldest first.
    loose: BTreeMap<u64, CancellationToken>,
    /// Connections of known callers beyond their shares, the oldest first.
    over: HashMap<Holder, BTreeMap<u64, Beyond>>,
    /// How many these are.
    beyond: usize,
    kept: usize,
}

/// A connection beyond its caller's share.
#[derive(Debug)]
struct Beyond {
    displaced: CancellationToken,
    /// Requests that are under way on it.
    under_way: Arc<AtomicU64>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    places: Arc<Inner>,
    standing: Mutex<Standing>,
    is_kept: AtomicBool,
    displaced: CancellationToken,
    under_way: Arc<AtomicU64>,
    /// Whether another connection had to go for it.
    pub took_anothers: bool,
}

#[derive(Debug)]
enum Standing {
    Loose(u64),
    Over(Holder, u64),
    Kept { _share: Option<Share> },
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// So many places, of which so many are reserved for connections that keep theirs; at least one
    /// is not.
    #[must_use]
    pub fn new(most: usize, reserved: usize) -> Self {
        Self::of(most, reserved, None)
    }

    /// The same, divided among callers.
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

    /// Places that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.most.saturating_sub(locked(&self.0.taken).all())
    }

    /// A place for a new connection, if need be that of the oldest connection that may be
    /// displaced; none when no connection may.
    #[must_use]
    pub fn take(&self) -> Option<Seat> {
        let places = &self.0;
        let mut taken = locked(&places.taken);
        let mut took_anothers = false;
        while taken.all() >= places.most || taken.loose.len() >= places.most - places.reserved {
            taken.displace(places.most)?.cancel();
            took_anothers = true;
        }
        let displaced = CancellationToken::new();
        let number = taken.enter(displaced.clone());
        Some(Seat {
            places: Arc::clone(places),
            standing: Mutex::new(Standing::Loose(number)),
            is_kept: AtomicBool::new(false),
            displaced,
            under_way: Arc::default(),
            took_anothers,
        })
    }
}

impl Taken {
    fn all(&self) -> usize {
        self.loose.len() + self.beyond + self.kept
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

    fn enter_beyond(&mut self, holder: Holder, beyond: Beyond) -> u64 {
        let number = self.number();
        self.over.entry(holder).or_default().insert(number, beyond);
        self.beyond += 1;
        number
    }

    /// Takes a connection out, unless it is displaced by now.
    fn leave(&mut self, standing: &Standing) -> bool {
        match standing {
            Standing::Loose(number) => self.loose.remove(number).is_some(),
            Standing::Over(holder, number) => self.leave_beyond(holder, *number).is_some(),
            Standing::Kept { .. } => {
                self.kept -= 1;
                true
            }
        }
    }

    fn leave_beyond(&mut self, holder: &Holder, number: u64) -> Option<Beyond> {
        let of_holder = self.over.get_mut(holder)?;
        let left = of_holder.remove(&number)?;
        if of_holder.is_empty() {
            self.over.remove(holder);
        }
        self.beyond -= 1;
        Some(left)
    }

    /// Takes out the connection that makes room for a new one: of those beyond their callers'
    /// shares, or of those without a key, whichever are more.
    fn displace(&mut self, most: usize) -> Option<CancellationToken> {
        let full = self.all() >= most;
        if full && self.beyond > self.loose.len() {
            return self.displace_idle().or_else(|| self.displace_loose());
        }
        self.displace_loose().or_else(|| if full { self.displace_idle() } else { None })
    }

    fn displace_loose(&mut self) -> Option<CancellationToken> {
        self.loose.pop_first().map(|(_, displaced)| displaced)
    }

    /// The oldest without a request, of the caller that has the most beyond its share.
    fn displace_idle(&mut self) -> Option<CancellationToken> {
        let idle = |(holder, all): (&Holder, &BTreeMap<u64, Beyond>)| {
            let oldest =
                all.iter().find(|(_, beyond)| beyond.under_way.load(Ordering::Acquire) == 0);
            oldest.map(|(number, _)| (all.len(), *holder, *number))
        };
        let (_, holder, number) =
            self.over.iter().filter_map(idle).max_by_key(|(count, ..)| *count)?;
        self.leave_beyond(&holder, number).map(|beyond| beyond.displaced)
    }
}

impl Inner {
    /// How many connections may be beyond their callers' shares: the reserve is not for them.
    fn most_beyond(&self, taken: &Taken) -> usize {
        (self.most - self.reserved).saturating_sub(taken.kept)
    }
}

impl Seat {
    /// From now on nobody displaces the connection, unless it is too late.
    pub fn keep(&self) {
        if self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        self.keep_with(&mut locked(&self.standing), None);
    }

    fn keep_with(&self, standing: &mut Standing, share: Option<Share>) {
        if matches!(standing, Standing::Kept { .. }) {
            return;
        }
        let mut taken = locked(&self.places.taken);
        if taken.leave(standing) {
            taken.kept += 1;
            *standing = Standing::Kept { _share: share };
            self.is_kept.store(true, Ordering::Relaxed);
        }
    }

    /// From now on nobody displaces the connection, if that is within this caller's share. If not,
    /// nobody does while a request is under way on it. Fails when there is no room for that either:
    /// the request is to be refused.
    pub fn keep_for(&self, holder: Holder) -> Result<(), Exhausted> {
        if self.is_kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(shares) = &self.places.shares else {
            self.keep();
            return Ok(());
        };
        let mut standing = locked(&self.standing);
        if shares.has_room(&holder)
            && let Ok(share) = shares.take(holder, 1)
        {
            self.keep_with(&mut standing, Some(share));
            return Ok(());
        }
        if self.go_beyond(&mut standing, holder) {
            return Ok(());
        }
        // There may be room by now.
        let share = shares.take(holder, 1)?;
        self.keep_with(&mut standing, Some(share));
        Ok(())
    }

    /// Uses the connection beyond its caller's share, if there is room for that.
    fn go_beyond(&self, standing: &mut Standing, holder: Holder) -> bool {
        let mut taken = locked(&self.places.taken);
        let most = self.places.most_beyond(&taken);
        match *standing {
            Standing::Kept { .. } => true,
            Standing::Over(..) if taken.beyond <= most => true,
            Standing::Over(..) => {
                // Whoever is within its share may have the place.
                if taken.leave(standing) {
                    *standing = Standing::Loose(taken.enter(self.displaced.clone()));
                }
                false
            }
            Standing::Loose(_) => {
                while taken.beyond >= most {
                    let Some(idle) = taken.displace_idle() else { return false };
                    idle.cancel();
                }
                if taken.leave(standing) {
                    let beyond = Beyond {
                        displaced: self.displaced.clone(),
                        under_way: Arc::clone(&self.under_way),
                    };
                    *standing = Standing::Over(holder, taken.enter_beyond(holder, beyond));
                }
                true
            }
        }
    }

    /// From now on the connection may be displaced, and is the youngest of those.
    pub fn loosen(&self) {
        let mut standing = locked(&self.standing);
        if let Standing::Kept { .. } = *standing {
            let mut taken = locked(&self.places.taken);
            taken.kept -= 1;
            *standing = Standing::Loose(taken.enter(self.displaced.clone()));
            self.is_kept.store(false, Ordering::Relaxed);
        }
    }

    /// The number of requests that are under way on the connection, for who counts them.
    #[must_use]
    pub fn under_way(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.under_way)
    }

    /// Whether the connection has shown whose it is.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(*locked(&self.standing), Standing::Loose(_))
    }

    /// Whether the connection has lost its place.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.displaced.is_cancelled()
    }

    /// Resolves when the connection has lost its place and is to be closed.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + use<> {
        self.displaced.clone().cancelled_owned()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let standing = locked(&self.standing);
        locked(&self.places.taken).leave(&standing);
    }
}

#[cfg(test)]
mod tests;
