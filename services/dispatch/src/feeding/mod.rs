//! Feeding the queue with due deliveries.

mod feed_order;
mod feeder;

pub use feeder::Feeder;
