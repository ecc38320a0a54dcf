//! Checks the shape of the workspace: which crate may depend on which, what is pure, that the
//! modules of a crate form no cycles, and how large and wide a file may be.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

mod crates;
mod modules;
mod text;
mod workspace;
