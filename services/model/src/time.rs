//! Points in time as whole microseconds, the resolution of the databases.

use std::{fmt, time::Duration};

/// Microseconds since 1970-01-01T00:00:00Z by the database's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest representable time.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest representable time.
    pub const MAX: Self = Self(i64::MAX);

    /// From seconds and nanoseconds, as protobuf writes it; saturating.
    #[must_use]
    pub fn from_parts(seconds: i64, nanos: i32) -> Self {
        Self(seconds.saturating_mul(1_000_000).saturating_add(i64::from(nanos) / 1_000))
    }

    /// Whole seconds and the remaining nanoseconds, as protobuf writes it.
    #[must_use]
    pub fn parts(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(1_000_000) * 1_000;
        (self.0.div_euclid(1_000_000), i32::try_from(nanos).unwrap_or(0))
    }

    /// Whole seconds since 1970, as webhook-timestamp carries it.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Whole milliseconds since 1970, as UUIDv7 carries it.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Later by `duration`; saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `duration`; saturating.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_before_and_after_1970() {
        for micros in [-1, 0, 1, 999_999, 1_000_000, -1_000_001] {
            let (seconds, nanos) = Timestamp(micros).parts();
            assert!((0..1_000_000_000).contains(&nanos));
            assert_eq!(Timestamp::from_parts(seconds, nanos), Timestamp(micros));
        }
    }
}
