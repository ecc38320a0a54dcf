//! Tails: streams of what was accepted and of what happened to deliveries, read from the log of
//! commits.
//!
//! Every tail reads by its own place, in bounded batches, when its caller takes what it has. A slow
//! one reads later: what it holds meanwhile is its caller's share of a room
//! ([`crate::Options::tail_buffer_bytes`]). A commit of this process wakes the tails of its
//! projects at once; one question for all tails, asked every [`crate::Options::tail_poll`], finds
//! the commits of others.

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
