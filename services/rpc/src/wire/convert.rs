//! Between wire types and the model, where every role needs the same.

use std::{fmt::Display, str::FromStr, time::Duration};

use outrider_model::{Error, Result, Timestamp};

/// A timestamp on the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = at.parts();
    prost_types::Timestamp { seconds, nanos }
}

/// A timestamp from the wire: between the years 1 and 9999, as protobuf requires.
pub fn parse_timestamp(field: &str, at: &prost_types::Timestamp) -> Result<Timestamp> {
    const YEARS_1_TO_9999: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    if YEARS_1_TO_9999.contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos) {
        Ok(Timestamp::from_parts(at.seconds, at.nanos))
    } else {
        Err(Error::field(field, "must be a time between the years 1 and 9999"))
    }
}

/// A duration on the wire.
#[must_use]
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration from the wire: not negative.
pub fn parse_duration(field: &str, length: &prost_types::Duration) -> Result<Duration> {
    match (u64::try_from(length.seconds), u32::try_from(length.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Error::field(field, "must be a duration that is not negative")),
    }
}

/// An id that must be there.
pub fn parse_id<T>(field: &str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() {
        return Err(Error::field(field, "is required"));
    }
    text.parse().map_err(|error: T::Err| Error::field(field, error.to_string()))
}

/// An id that may be absent, which proto3 writes as an empty text.
pub fn parse_optional_id<T>(field: &str, text: &str) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { parse_id(field, text).map(Some) }
}
