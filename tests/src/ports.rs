//! Free ports on the loopback.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

use outrider_model::address::Policy;

/// This is below the kernel's range for outgoing connections, so a killed server finds its port
/// free when it is restarted.
const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a port on which nothing listens. This process never returns the same one again.
#[must_use]
pub fn free() -> u16 {
    // Each test process begins at another port, so that simultaneous ones rarely try the same.
    let offset = std::process::id().wrapping_mul(131) % COUNT;
    let policy = Policy::default();
    for _ in 0..COUNT {
        let port = FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        // An endpoint at a port of another service would be refused.
        if policy.judge("example.com", port).is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
    panic!("no port is free from {FIRST} to {}", FIRST + COUNT);
}
