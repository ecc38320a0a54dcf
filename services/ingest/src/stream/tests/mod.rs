//! Streams with a fake intake.

mod bench;
mod limits;
mod protocol;
