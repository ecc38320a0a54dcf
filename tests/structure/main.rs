//! Checks the shape of the workspace: which crates depend on which, which are pure, that the
//! modules of a crate form no cycles, and how large and wide files are.
#![allow(clippy::unwrap_used, reason = "all of this program is tests")]

mod crates;
mod modules;
mod text;
mod workspace;
