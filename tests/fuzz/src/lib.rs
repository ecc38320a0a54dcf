//! Feeds everything that reads bytes of strangers with arbitrary ones, and asserts what must hold
//! whatever they are.
//!
//! Each target is a function of bytes that panics when something does not hold. The program `fuzz`
//! hands them to libFuzzer, which makes bytes that reach new code; `tests/fuzz/run` builds and runs
//! it. What it found worth keeping is in `corpus/`, and the test of this crate runs the targets on
//! that.

#![forbid(unsafe_code)]

mod http1;
mod input;
mod lists;
mod roles;
mod runtime;
mod targets;

/// Something that reads bytes of strangers.
pub struct Target {
    /// Its name, and that of its directory in `corpus/`.
    pub name: &'static str,
    /// Reads bytes. Panics when something does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
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

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
