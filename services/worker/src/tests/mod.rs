//! The worker as a whole, with real sockets on the loopback and fakes of its surroundings.

mod answers;
pub(crate) mod bench;
mod exchanges;
pub(crate) mod fakes;
mod hostile;
mod isolation;
mod jobs;
mod lifecycle;
pub(crate) mod receiver;
mod scripted;
mod tls;
