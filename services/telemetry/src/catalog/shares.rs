//! Bounded resources that callers share.

use crate::metrics::section;

section! {
    "shares" {
        /// Amount of each shared resource of this process that callers hold: a number, or bytes if
        /// the resource's name ends with "bytes".
        HELD: IntGaugeVec("outrider_shares_held", ["resource"]);
        /// Maximum amount of each shared resource that all callers may hold together.
        TOTAL: IntGaugeVec("outrider_shares_limit", ["resource"]);
        /// Refused requests for a shared resource, by the share that was used up: key, project,
        /// organization, or server if nothing was left.
        REFUSED: IntCounterVec("outrider_shares_refused_total", ["resource", "share"]);
        /// Requests for a shared resource that waited until some was given back.
        WAITED: IntCounterVec("outrider_shares_waited_total", ["resource"]);
    }
}
