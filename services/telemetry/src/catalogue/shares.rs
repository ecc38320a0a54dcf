//! Bounded resources that callers share.

use crate::metrics::section;

section! {
    "shares" {
        /// What callers hold of each shared resource of this process: a number, or bytes where the
        /// resource's name ends with them.
        HELD: IntGaugeVec("outrider_shares_held", ["resource"]);
        /// What all callers together may hold of it at once.
        TOTAL: IntGaugeVec("outrider_shares_limit", ["resource"]);
        /// Requests for more that were refused, by whose share was used up: key, project,
        /// organization, or server when nothing was left at all.
        REFUSED: IntCounterVec("outrider_shares_refused_total", ["resource", "share"]);
        /// Requests for more that waited until something was given back.
        WAITED: IntCounterVec("outrider_shares_waited_total", ["resource"]);
    }
}
