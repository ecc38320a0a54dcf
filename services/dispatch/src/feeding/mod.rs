//! Feeding the queue with what is due.

mod feed_order;
mod feeder;

pub use feeder::Feeder;
