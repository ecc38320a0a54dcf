//! Feeds every parser that reads bytes from untrusted clients with arbitrary bytes, and asserts
//! what must hold for all of them.
//!
//! A target is a function that takes bytes and panics if something does not hold. The program
//! `fuzz` runs it under libFuzzer, which finds bytes that reach new code. `tests/fuzz/run` builds
//! and runs that program. `corpus/` has the inputs that were worth keeping, and the test of this
//! crate runs the targets on them.

#![forbid(unsafe_code)]

mod http1;
mod input;
mod lists;
mod roles;
mod runtime;
mod targets;

/// A parser of bytes from untrusted clients.
pub struct Target {
    /// Its name, which is also the name of its directory in `corpus/`.
    pub name: &'static str,
    /// Parses bytes. Panics if something does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "answer", run: targets::answer::run },
    Target { name: "connect", run: targets::connect::run },
    Target { name: "cursors", run: targets::cursors::run },
    Target { name: "framing", run: targets::framing::run },
    Target { name: "gateway", run: targets::gateway::run },
    Target { name: "grpc", run: targets::grpc::run },
    Target { name: "lines", run: targets::lines::run },
    Target { name: "rest", run: targets::rest::run },
    Target { name: "url", run: targets::url::run },
];

/// Returns the target with this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
