//! The bytes of a connection, checked before the HTTP library sees them.

pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod io;
