//! Accepting: writes an event, its idempotency key and its pending deliveries in one commit, then
//! answers, then queues the jobs.

mod commit;
mod intake;
mod room;
mod route;

pub use intake::EventIntake;
