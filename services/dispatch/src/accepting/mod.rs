//! Accepting: an event, its idempotency key and its pending deliveries in one commit; then the
//! answer; then the queue.

mod commit;
mod intake;
mod room;
mod route;

pub use intake::EventIntake;
