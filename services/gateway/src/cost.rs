//! What it takes to decode a request: memory, which is counted while it is read, and time, which is
//! not taken from the runtime.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use outrider_model::Error;
use outrider_shares::{Exhausted, Holder, Share, Shares};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Options;

/// A request may take so many times its size.
const TIMES: usize = 8;
/// Or this, in bytes, whatever its size: many small entries take more than their text.
const LEAST: usize = 24 * 1024 * 1024;
/// What every request may take beside the room for bodies: so much is in every connection's buffers
/// anyway.
const FREE: usize = 16 * 1024;
/// The room is taken in steps of so many bytes.
const STEP: usize = 64 * 1024;
/// A large body is likely to take so many times its size: for it, room is taken at once.
const LIKELY: usize = 2;

/// A message without its fields. All of these are about what is allocated, from the text to what
/// the role makes of it.
pub(crate) const MESSAGE: usize = 1024;
/// An entry of a map, without its texts.
pub(crate) const ENTRY: usize = 192;
/// A value in a list or field.
pub(crate) const VALUE: usize = 64;

/// The memory of one decoding.
pub(crate) struct Cost {
    spent: Cell<usize>,
    most: usize,
    /// Of the room for bodies, of the caller's share.
    held: RefCell<Option<Share>>,
    paid: Cell<usize>,
}

/// Why a decoding may not go on.
pub(crate) enum Refused {
    /// The request takes more than any may: this many bytes.
    TooMuch(usize),
    /// There is no room for it now.
    NoRoom(Exhausted),
}

impl Cost {
    /// For a text of so many bytes, of which no room is held.
    pub(crate) fn alone(bytes: usize, most: usize) -> Self {
        let most = bytes.saturating_mul(TIMES).max(LEAST).min(most);
        Self { spent: Cell::new(0), most, held: RefCell::new(None), paid: Cell::new(FREE) }
    }

    /// Memory is taken.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Refused> {
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        if spent > self.most {
            return Err(Refused::TooMuch(self.most));
        }
        if spent > self.paid.get() { self.pay(spent) } else { Ok(()) }
    }

    /// Of what was taken, what was spent.
    fn settled(self) -> Option<Share> {
        let mut held = self.held.into_inner();
        if let Some(held) = held.as_mut() {
            held.shrink(self.paid.get().saturating_sub(self.spent.get().max(FREE)));
        }
        held
    }

    fn pay(&self, spent: usize) -> Result<(), Refused> {
        let mut held = self.held.borrow_mut();
        let Some(held) = held.as_mut() else { return Ok(()) };
        let bytes = (spent - self.paid.get()).next_multiple_of(STEP);
        held.grow(bytes).map_err(Refused::NoRoom)?;
        self.paid.set(self.paid.get() + bytes);
        Ok(())
    }
}

/// The room of what was decoded, to be kept as long.
pub(crate) struct Held {
    _share: Option<Share>,
    /// For a body beyond its caller's share.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Where bodies are decoded, and within which bounds.
#[derive(Clone)]
pub(crate) struct Decoding {
    room: Shares,
    /// Places for large bodies.
    places: Arc<Semaphore>,
    /// The one place beyond all shares.
    turn: Arc<Semaphore>,
    apart_bytes: usize,
    max_bytes: usize,
}

impl Decoding {
    /// In this room.
    pub(crate) fn new(options: &Options, room: &Shares) -> Self {
        Self {
            room: room.clone(),
            places: Arc::new(Semaphore::new(options.max_decodings.clamp(1, Semaphore::MAX_PERMITS))),
            turn: Arc::new(Semaphore::new(1)),
            apart_bytes: options.decode_apart_bytes,
            max_bytes: options.max_decoded_bytes,
        }
    }

    /// Decodes a text of so many bytes: a large one off the runtime's threads, and few at once.
    /// Without room it is refused.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Held), Error> {
        let work = here(self.cost(bytes, self.room.share(holder)), work);
        let (decoded, share) = if bytes <= self.apart_bytes { work() } else { self.apart(work).await }?;
        Ok((decoded, Held { _share: share, _turn: None }))
    }

    /// Decodes a body that was let in, as above. A large one waits for its room. When its caller's
    /// share is used up, it takes its turn beyond it: bodies that filled the share together would
    /// otherwise all be refused.
    pub(crate) async fn body<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Held), Error> {
        if bytes > self.apart_bytes {
            // Boxed: it would make the future of every request as large.
            return Box::pin(self.large(holder, bytes, work)).await;
        }
        let (decoded, share) = here(self.cost(bytes, self.room.share(holder)), work)()?;
        Ok((decoded, Held { _share: share, _turn: None }))
    }

    async fn large<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Held), Error> {
        let likely = bytes.saturating_mul(LIKELY).min(self.max_bytes);
        let (share, turn) = tokio::select! {
            biased;
            share = self.room.wait(holder, likely) => (share, None),
            turn = Arc::clone(&self.turn).acquire_owned() => {
                let mut share = self.room.share(holder);
                share.exceed(likely);
                (share, Some(turn.map_err(|_| fault())?))
            }
        };
        let (decoded, share) = self.apart(here(self.cost(bytes, share), work)).await?;
        Ok((decoded, Held { _share: share, _turn: turn }))
    }

    fn cost(&self, bytes: usize, share: Share) -> Cost {
        let paid = Cell::new(FREE + share.amount());
        Cost { paid, held: RefCell::new(Some(share)), ..Cost::alone(bytes, self.max_bytes) }
    }

    async fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| fault())?;
        let decoding = tokio::task::spawn_blocking(move || {
            // However soon its caller goes, it takes its place until it is done.
            let _place = place;
            work()
        });
        decoding.await.map_err(|_| fault())?
    }
}

/// The work at this cost, where it is called. Gives what it becomes and its part of the room.
fn here<T>(cost: Cost, work: impl FnOnce(&Cost) -> Result<T, Error>) -> impl FnOnce() -> Result<(T, Option<Share>), Error> {
    move || work(&cost).map(|decoded| (decoded, cost.settled()))
}

fn fault() -> Error {
    Error::internal("a fault of the server")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(room: &Shares) -> Cost {
        let share = room.share(Holder::of_request(&http::Extensions::new()));
        Cost { held: RefCell::new(Some(share)), ..Cost::alone(1, 64 * 1024 * 1024) }
    }

    #[test]
    fn room_is_held_for_what_is_spent_and_given_back() {
        // A lone key has a quarter of it.
        let room = Shares::new(crate::REQUEST_BYTES, 4 * (3 * STEP));
        let small = within(&room);
        assert!(small.spend(FREE).is_ok() && room.held() == 0);
        let large = within(&room);
        assert!(large.spend(FREE + 1).is_ok());
        assert_eq!(room.held(), STEP);
        for _ in 0..STEP - 1 {
            assert!(large.spend(1).is_ok());
        }
        assert_eq!(room.held(), STEP);
        assert!(matches!(large.spend(3 * STEP), Err(Refused::NoRoom(_))));
        drop(large);
        assert_eq!(room.held(), 0);
    }

    #[tokio::test]
    async fn what_fills_a_share_is_decoded_in_turn_beyond_it() {
        const BODY: usize = 256 * 1024;
        let nobody = Holder::of_request(&http::Extensions::new());
        // A lone key has four bodies of it, and nothing for what they become.
        let room = Shares::new(crate::REQUEST_BYTES, 4 * 4 * BODY);
        let decoding = Decoding::new(&Options::default(), &room);
        let bodies = [(); 4].map(|()| room.take(nobody, BODY).unwrap());
        let spend = |cost: &Cost| cost.spend(2 * BODY).map_err(|_| Error::overloaded("no room"));
        assert!(decoding.run(nobody, BODY, spend).await.is_err(), "without its turn it is refused");
        let ((), first) = decoding.body(nobody, BODY, spend).await.unwrap();
        assert_eq!(room.held(), 6 * BODY - FREE);
        let second = decoding.body(nobody, BODY, spend);
        tokio::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending(), "one at a time");
        drop(first);
        let ((), second) = second.await.unwrap();
        // What is decoded when there is room again takes no turn.
        drop(bodies);
        let less = |cost: &Cost| cost.spend(BODY).map_err(|_| Error::overloaded("no room"));
        let ((), third) = decoding.body(nobody, BODY, less).await.unwrap();
        assert_eq!(room.held(), 3 * BODY - 2 * FREE, "what was not spent is given back");
        drop((second, third));
        assert_eq!(room.held(), 0);
    }

    #[test]
    fn a_request_takes_eight_times_its_size_at_most_and_a_batch_64_mib() {
        let mib = 1024 * 1024;
        for (bytes, most) in [(0, 24), (2, 24), (5, 40), (8, 64), (20, 64)] {
            let cost = Cost::alone(bytes * mib, 64 * mib);
            assert!(cost.spend(most * mib).is_ok());
            assert!(matches!(cost.spend(1), Err(Refused::TooMuch(limit)) if limit == most * mib), "{bytes}");
        }
    }
}
