//! The streams of a connection, with the bounds that the HTTP and TLS libraries do not have.
//!
//! [`Metered`] lies below TLS. It counts the bytes and reads of each exchange, so that everything
//! that an endpoint can send (TLS records without content, session tickets, chunks of one byte,
//! chunk extensions, trailers) costs a bounded time. [`Secure`] lies above TLS. The reader of heads
//! ([`super::head`]) lies above both.

mod metered;
mod secure;
mod watch;
mod write_through;

pub(crate) use metered::Metered;
pub(crate) use secure::Secure;
pub(crate) use watch::Watch;
pub(crate) use write_through::write_through;
