//! The role that opens connections to the outside.

use crate::metrics::{seconds, section};

section! {
    "egress" {
        /// Open tunnels, for workers in other processes.
        TUNNELS: IntGauge("outrider_egress_tunnels");
        /// Connections asked for, by result: connected, refused (by the policy), not-resolved,
        /// connect-failed, unavailable.
        DIALS: IntCounterVec("outrider_egress_dials_total", ["result"]);
        /// Connections refused by the policy, by rule.
        REFUSALS: IntCounterVec("outrider_egress_refusals_total", ["rule"]);
        /// Time to look a name up, answers from the cache included.
        DNS_SECONDS: Histogram("outrider_egress_dns_seconds", seconds);
        /// Time of a dial as a whole: judging, looking up, connecting.
        DIAL_SECONDS: Histogram("outrider_egress_dial_seconds", seconds);
        /// Bytes that tunnels carried, to the outside (out) and back (in).
        BYTES: IntCounterVec("outrider_egress_tunnel_bytes_total", ["direction"]);
    }
}
