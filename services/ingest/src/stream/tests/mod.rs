//! Streams against an intake that does as it is told.

mod bench;
mod limits;
mod protocol;
