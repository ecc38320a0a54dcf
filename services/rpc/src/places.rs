//! Places for the connections of a listener. Those that have shown whose they are keep theirs; when all others are taken, a new connection
//! gets that of the oldest of these, so that nobody keeps others out by connections alone.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

/// A bounded number of places.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// How many of them only connections that keep theirs may take.
    reserved: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Connections that may be displaced, the oldest first.
    loose: BTreeMap<u64, CancellationToken>,
    kept: usize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    places: Arc<Inner>,
    standing: Mutex<Standing>,
    is_kept: AtomicBool,
    displaced: CancellationToken,
    /// Whether another connection had to go for it.
    pub took_anothers: bool,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    Loose(u64),
    Kept,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// So many places, of which so many are reserved for connections that keep theirs; at least one is not.
    #[must_use]
    pub fn new(most: usize, reserved: usize) -> Self {
        let most = most.max(1);
        Self(Arc::new(Inner { most, reserved: reserved.min(most - 1), taken: Mutex::default() }))
    }

    /// Places that nobody has.
    #[must_use]
    pub fn free(&self) -> usize {
        let taken = locked(&self.0.taken);
        self.0.most.saturating_sub(taken.loose.len() + taken.kept)
    }

    /// A place for a new connection, if need be that of the oldest connection that may be displaced; none when all are kept.
    #[must_use]
    pub fn take(&self) -> Option<Seat> {
        let places = &self.0;
        let mut taken = locked(&places.taken);
        let mut took_anothers = false;
        while taken.loose.len() + taken.kept >= places.most || taken.loose.len() >= places.most - places.reserved {
            let (_, oldest) = taken.loose.pop_first()?;
            oldest.cancel();
            took_anothers = true;
        }
        let displaced = CancellationToken::new();
        let number = taken.enter(displaced.clone());
        let standing = Mutex::new(Standing::Loose(number));
        Some(Seat { places: Arc::clone(places), standing, is_kept: AtomicBool::new(false), displaced, took_anothers })
    }
}

impl Taken {
    fn enter(&mut self, displaced: CancellationToken) -> u64 {
        self.next += 1;
        self.loose.insert(self.next, displaced);
        self.next
    }
}

impl Seat {
    /// From now on nobody displaces the connection, unless it is too late.
    pub fn keep(&self) {
        if self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        let mut standing = locked(&self.standing);
        if let Standing::Loose(number) = *standing {
            let mut taken = locked(&self.places.taken);
            if taken.loose.remove(&number).is_some() {
                taken.kept += 1;
                *standing = Standing::Kept;
                self.is_kept.store(true, Ordering::Relaxed);
            }
        }
    }

    /// From now on the connection may be displaced, and is the youngest of those.
    pub fn loosen(&self) {
        let mut standing = locked(&self.standing);
        if let Standing::Kept = *standing {
            let mut taken = locked(&self.places.taken);
            taken.kept -= 1;
            *standing = Standing::Loose(taken.enter(self.displaced.clone()));
            self.is_kept.store(false, Ordering::Relaxed);
        }
    }

    /// Resolves when the connection has lost its place and is to be closed.
    pub fn displaced(&self) -> impl Future<Output = ()> + Send + use<> {
        self.displaced.clone().cancelled_owned()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let standing = *locked(&self.standing);
        let mut taken = locked(&self.places.taken);
        match standing {
            Standing::Loose(number) => drop(taken.loose.remove(&number)),
            Standing::Kept => taken.kept -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_displaced(seat: &Seat) -> bool {
        seat.displaced.is_cancelled()
    }

    #[test]
    fn the_oldest_that_does_not_keep_its_place_goes_first() {
        let places = Places::new(3, 0);
        let seats = [(); 3].map(|()| places.take().unwrap());
        assert!(seats.iter().all(|seat| !seat.took_anothers));
        seats[0].keep();
        let fourth = places.take().unwrap();
        assert!(fourth.took_anothers);
        assert_eq!(seats.each_ref().map(is_displaced), [false, true, false]);
        // Too late: it is on its way out, and counts no more.
        seats[1].keep();
        seats[1].keep();
        seats[2].keep();
        fourth.keep();
        assert!(places.take().is_none(), "all keep their places");
        drop(seats);
        let left = locked(&places.0.taken);
        assert_eq!((left.loose.len(), left.kept), (0, 1));
    }

    #[test]
    fn a_part_is_reserved_for_those_that_keep_their_places() {
        let places = Places::new(4, 2);
        let kept = [(); 2].map(|()| places.take().unwrap());
        kept.iter().for_each(Seat::keep);
        let loose = [(); 2].map(|()| places.take().unwrap());
        let fifth = places.take().unwrap();
        assert!(is_displaced(&loose[0]) && !is_displaced(&loose[1]));
        drop(kept);
        let sixth = places.take().unwrap();
        assert!(is_displaced(&loose[1]) && sixth.took_anothers, "two are free, and reserved");
        fifth.keep();
        assert!(!places.take().unwrap().took_anothers, "one of the others is free again");
    }

    #[test]
    fn a_place_that_is_loosened_is_the_youngest() {
        let places = Places::new(2, 0);
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        first.keep();
        first.loosen();
        let third = places.take().unwrap();
        assert!(is_displaced(&second) && !is_displaced(&first) && !is_displaced(&third));
    }
}
