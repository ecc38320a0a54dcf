//! Tails: streams of accepted events and of changes of deliveries, read from the commit log.
//!
//! Every tail reads from its own position, in bounded batches, as its caller takes messages. A slow
//! caller makes it read later, and it holds at most the caller's share of a room
//! ([`crate::Options::tail_buffer_bytes`]). A commit of this process wakes the tails of its
//! projects at once. One query for all tails, every [`crate::Options::tail_poll`], finds the
//! commits of other processes.

mod cursor;
mod deliveries;
mod events;
mod stream;
mod tails;
#[cfg(test)]
mod tests;

pub use self::{
    cursor::Cursors,
    deliveries::{DeliveryUpdates, DeliveryWish},
    events::{AcceptedEvents, EventWish},
    stream::{Message, Opening},
    tails::{Around, Tails},
};
