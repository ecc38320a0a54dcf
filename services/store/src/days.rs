//! Days in UTC, by which PostgreSQL's tables are partitioned, and their ranges of ids.

use outrider_model::{Timestamp, id::uuid_bound};
use uuid::Uuid;

/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Days since 1970-01-01 in UTC.
pub(crate) fn day_of(at: Timestamp) -> i32 {
    i32::try_from(at.0.div_euclid(DAY_MICROS)).unwrap_or(if at.0 < 0 { i32::MIN } else { i32::MAX })
}

/// The first id of a day, and the first of the next.
pub(crate) fn id_range(day: i32) -> (Uuid, Uuid) {
    let midnight = |day: i64| uuid_bound(Timestamp(day.saturating_mul(DAY_MICROS)));
    (midnight(day.into()), midnight(i64::from(day) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(
            (day_of(Timestamp(-1)), day_of(Timestamp(0)), day_of(Timestamp(86_400_000_000))),
            (-1, 0, 1)
        );
        assert_eq!((day_of(Timestamp::MIN), day_of(Timestamp::MAX)), (-106_751_992, 106_751_991));
    }
}
