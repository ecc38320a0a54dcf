//! The role that opens connections to endpoints.

use crate::metrics::{seconds, section};

section! {
    "egress" {
        /// Open tunnels of workers in other processes.
        TUNNELS: IntGauge("outrider_egress_tunnels");
        /// Requested connections, by result: connected, refused (by the policy), not-resolved,
        /// connect-failed, unavailable.
        DIALS: IntCounterVec("outrider_egress_dials_total", ["result"]);
        /// Connections refused by the policy, by rule.
        REFUSALS: IntCounterVec("outrider_egress_refusals_total", ["rule"]);
        /// Duration of a DNS lookup, including answers from the cache.
        DNS_SECONDS: Histogram("outrider_egress_dns_seconds", seconds);
        /// Duration of a dial: checking, looking up, connecting.
        DIAL_SECONDS: Histogram("outrider_egress_dial_seconds", seconds);
        /// Bytes carried by tunnels: to endpoints (out), and from them (in).
        BYTES: IntCounterVec("outrider_egress_tunnel_bytes_total", ["direction"]);
    }
}
