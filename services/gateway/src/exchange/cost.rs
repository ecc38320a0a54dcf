//! What it costs to decode a request: memory, which is counted while the request is read, and time,
//! which must not be taken from the async runtime.

use std::cell::{Cell, RefCell};

use outrider_model::Error;
use outrider_shares::{Exhausted, Holder, Resource, Share, Shares, Turn, TurnResources, Turns};

use crate::{Options, exchange::fault::panicked};

/// Decoding a request may take this many times its size.
const TIMES: usize = 8;
/// Or this many bytes, whatever its size: many small entries take more than their text.
const LEAST: usize = 24 * 1024 * 1024;
/// Memory that every request may take without a share of the room: this much is in every
/// connection's buffers anyway.
const FREE: usize = 16 * 1024;
/// Bytes by which the held room grows at once.
const STEP: usize = 64 * 1024;
/// Decoding a large body usually takes this many times its size. For a large body, this room is
/// taken at once.
const LIKELY: usize = 2;

const DECODINGS: TurnResources = TurnResources {
    slots: Resource { name: "decodings", noun: "decodings of large bodies", least: 1 },
    line: Resource {
        name: "decodings-line",
        noun: "places in the line for decodings of large bodies",
        least: 1,
    },
};
const BEYOND: TurnResources = TurnResources {
    slots: Resource { name: "decodings-beyond", noun: "decodings beyond a share", least: 1 },
    line: Resource {
        name: "decodings-beyond-line",
        noun: "places in the line for decodings beyond a share",
        least: 1,
    },
};

/// A message without its fields. This cost and those below are about what is allocated, from the
/// text to what the role makes of it.
pub(crate) const MESSAGE: usize = 1024;
/// An entry of a map, without its texts.
pub(crate) const ENTRY: usize = 192;
/// A value in a list or field.
pub(crate) const VALUE: usize = 64;

/// The memory of one decoding.
pub(crate) struct Cost {
    spent: Cell<usize>,
    most: usize,
    /// Taken from the caller's share of the room for bodies.
    held: RefCell<Option<Share>>,
    paid: Cell<usize>,
}

/// Why a decoding must stop.
pub(crate) enum Refused {
    /// The request takes more than any request may: this many bytes.
    TooMuch(usize),
    /// There is no room for it now.
    NoRoom(Exhausted),
}

impl Cost {
    /// The cost of a text of `bytes` bytes, without holding room.
    pub(crate) fn alone(bytes: usize, most: usize) -> Self {
        let most = bytes.saturating_mul(TIMES).max(LEAST).min(most);
        Self { spent: Cell::new(0), most, held: RefCell::new(None), paid: Cell::new(FREE) }
    }

    /// Records that memory is taken.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Refused> {
        let spent = self.spent.get().saturating_add(bytes);
        self.spent.set(spent);
        if spent > self.most {
            return Err(Refused::TooMuch(self.most));
        }
        if spent > self.paid.get() { self.pay(spent) } else { Ok(()) }
    }

    /// Returns the held room, reduced to what was spent.
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

/// The room of what was decoded, held as long as that is kept.
pub(crate) struct HeldRoom {
    _share: Option<Share>,
    /// For a body beyond its caller's share.
    _turn: Option<Turn>,
}

/// Where bodies are decoded, and within which limits.
#[derive(Clone)]
pub(crate) struct Decoding {
    room: Shares,
    /// Slots for large bodies. Waiting bodies are limited, and divided in the same way as the room.
    places: Turns,
    /// The single slot beyond all shares, for large bodies whose callers have no room left.
    beyond: Turns,
    apart_bytes: usize,
    max_bytes: usize,
}

impl Decoding {
    /// Decodes within this room.
    pub(crate) fn new(options: &Options, room: &Shares) -> Self {
        let line = options.max_buffered_bytes / options.decode_apart_bytes.max(1);
        Self {
            room: room.clone(),
            places: Turns::new(DECODINGS, options.max_decodings, line),
            beyond: Turns::new(BEYOND, 1, line),
            apart_bytes: options.decode_apart_bytes,
            max_bytes: options.max_decoded_bytes,
        }
    }

    /// Decodes a text of `bytes` bytes. A large one is decoded off the runtime's threads, and only
    /// a few at once. Fails if there is no room.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, HeldRoom), Error> {
        let work = with_cost(self.cost(bytes, self.room.share(holder)), work);
        // Boxed, because it would enlarge the future of every request.
        let (decoded, share) = if bytes <= self.apart_bytes {
            work()
        } else {
            Box::pin(self.apart(holder, work)).await
        }?;
        Ok((decoded, HeldRoom { _share: share, _turn: None }))
    }

    /// Decodes a body that was admitted. A large body waits for its room. If its caller's share is
    /// used up, it takes a turn beyond the share. Otherwise, bodies that filled the share together
    /// would all be refused.
    pub(crate) async fn body<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, HeldRoom), Error> {
        if bytes > self.apart_bytes {
            // Boxed, because it would enlarge the future of every request.
            return Box::pin(self.large(holder, bytes, work)).await;
        }
        let (decoded, share) = with_cost(self.cost(bytes, self.room.share(holder)), work)()?;
        Ok((decoded, HeldRoom { _share: share, _turn: None }))
    }

    async fn large<T: Send + 'static>(
        &self,
        holder: Holder,
        bytes: usize,
        work: impl FnOnce(&Cost) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, HeldRoom), Error> {
        let likely = bytes.saturating_mul(LIKELY).min(self.max_bytes);
        let (share, turn) = tokio::select! {
            biased;
            share = self.room.wait(holder, likely) => (share, None),
            turn = self.beyond.wait(holder) => {
                let mut share = self.room.share(holder);
                share.exceed(likely);
                (share, Some(turn))
            }
        };
        let work = with_cost(self.cost(bytes, share), work);
        // A body beyond its share has the one slot for that, and waits for no other.
        let (decoded, share) =
            if turn.is_some() { off_thread(work).await } else { self.apart(holder, work).await }?;
        Ok((decoded, HeldRoom { _share: share, _turn: turn }))
    }

    fn cost(&self, bytes: usize, share: Share) -> Cost {
        let paid = Cell::new(FREE + share.amount());
        Cost { paid, held: RefCell::new(Some(share)), ..Cost::alone(bytes, self.max_bytes) }
    }

    async fn apart<T: Send + 'static>(
        &self,
        holder: Holder,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.places.wait(holder).await;
        off_thread(move || {
            // Even if the caller leaves early, the slot is held until the work is done.
            let _turn = turn;
            work()
        })
        .await
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(panicked("decoding a request"))?
}

/// Wraps the work with its cost. Returns its result and its room.
fn with_cost<T>(
    cost: Cost,
    work: impl FnOnce(&Cost) -> Result<T, Error>,
) -> impl FnOnce() -> Result<(T, Option<Share>), Error> {
    move || work(&cost).map(|decoded| (decoded, cost.settled()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_model::{OrganizationId, Timestamp};

    use super::*;

    fn within(room: &Shares) -> Cost {
        let share = room.share(Holder::of_request(&http::Extensions::new()));
        Cost { held: RefCell::new(Some(share)), ..Cost::alone(1, 64 * 1024 * 1024) }
    }

    #[test]
    fn room_is_held_for_what_is_spent_and_given_back() {
        // A lone key may hold a quarter of it.
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 4 * (3 * STEP));
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
        // A lone key may hold four bodies, with nothing left for what they become.
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 4 * 4 * BODY);
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
        // A body that is decoded when there is room again takes no turn.
        drop(bodies);
        let less = |cost: &Cost| cost.spend(BODY).map_err(|_| Error::overloaded("no room"));
        let ((), third) = decoding.body(nobody, BODY, less).await.unwrap();
        assert_eq!(room.held(), 3 * BODY - 2 * FREE, "what was not spent is given back");
        drop((second, third));
        assert_eq!(room.held(), 0);
    }

    /// A caller from a separate organization.
    fn somebody(number: u64) -> Holder {
        let organization = OrganizationId::new(Timestamp(0), number);
        Holder { organization, ..Holder::of_request(&http::Extensions::new()) }
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let is_so = async {
            while !is_so() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_so)
            .await
            .unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn large_bodies_are_decoded_in_turns() {
        const BODY: usize = 256 * 1024;
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 256 * BODY);
        let decoding = Decoding::new(&Options::default(), &room);
        let (may_end, ends) = std::sync::mpsc::channel::<()>();
        let ends = std::sync::Mutex::new(ends);
        // One decoding takes long, and a lone key may have one slot of four.
        let slow = tokio::spawn({
            let decoding = decoding.clone();
            async move {
                let wait = move |_: &Cost| {
                    ends.lock().unwrap().recv().map_err(|_| Error::overloaded("never"))
                };
                decoding.body(somebody(1), BODY, wait).await.map(drop)
            }
        });
        until("it is decoded", || decoding.places.held() == (1, 0)).await;
        let next = tokio::spawn({
            let decoding = decoding.clone();
            async move { decoding.body(somebody(1), BODY, |_| Ok(())).await.map(drop) }
        });
        until("the next waits", || decoding.places.held() == (1, 1)).await;
        let other = decoding.body(somebody(2), BODY, |_| Ok(7));
        let (decoded, _) = tokio::time::timeout(Duration::from_secs(20), other)
            .await
            .expect("it has its turn")
            .unwrap();
        assert!(decoded == 7 && !next.is_finished());
        may_end.send(()).unwrap();
        slow.await.unwrap().unwrap();
        next.await.unwrap().unwrap();
        assert_eq!(decoding.places.held(), (0, 0));
    }

    #[tokio::test]
    async fn who_has_no_room_left_takes_turns() {
        const BODY: usize = 256 * 1024;
        let room = Shares::new(crate::exchange::shared::REQUEST_BYTES, 4 * 4 * BODY);
        let decoding = Decoding::new(&Options::default(), &room);
        let _full = [(1, 4), (2, 2)].map(|(who, bodies)| {
            let mut share = room.share(somebody(who));
            share.exceed(bodies * BODY);
            share
        });
        let (_, first) = decoding.body(somebody(1), BODY, |_| Ok(())).await.unwrap();
        let mut waiting: Vec<_> = [1, 1, 1, 2]
            .map(|who| Box::pin(decoding.body(somebody(who), 2 * BODY, move |_| Ok(who))))
            .into();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        assert_eq!(decoding.beyond.held(), (1, 4));
        let mut last = waiting.pop().unwrap();
        drop(first);
        // One of the two that came first, then the other.
        let mut first = waiting.remove(0);
        let (who, held) = first.as_mut().await.unwrap();
        assert_eq!(who, 1);
        drop(held);
        let (who, _held) = last.as_mut().await.unwrap();
        assert_eq!(who, 2);
        assert!(futures::poll!(&mut waiting[0]).is_pending());
    }

    #[test]
    fn a_request_takes_eight_times_its_size_at_most_and_a_batch_64_mib() {
        let mib = 1024 * 1024;
        for (bytes, most) in [(0, 24), (2, 24), (5, 40), (8, 64), (20, 64)] {
            let cost = Cost::alone(bytes * mib, 64 * mib);
            assert!(cost.spend(most * mib).is_ok());
            assert!(
                matches!(cost.spend(1), Err(Refused::TooMuch(limit)) if limit == most * mib),
                "{bytes}"
            );
        }
    }
}
