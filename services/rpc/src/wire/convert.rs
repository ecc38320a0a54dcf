//! Conversions between wire types and the model that several roles need.

use std::{fmt::Display, str::FromStr, time::Duration};

use outrider_model::{Error, Result, Timestamp};

/// Converts a timestamp to the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = at.parts();
    prost_types::Timestamp { seconds, nanos }
}

/// Reads a timestamp from the wire. It must be between the years 1 and 9999, as protobuf requires.
pub fn parse_timestamp(field: &str, at: &prost_types::Timestamp) -> Result<Timestamp> {
    const YEARS_1_TO_9999: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    if YEARS_1_TO_9999.contains(&at.seconds) && (0..1_000_000_000).contains(&at.nanos) {
        Ok(Timestamp::from_parts(at.seconds, at.nanos))
    } else {
        Err(Error::field(field, "must be a time between the years 1 and 9999"))
    }
}

/// Converts a duration to the wire.
#[must_use]
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// Reads a duration from the wire. It must not be negative.
pub fn parse_duration(field: &str, length: &prost_types::Duration) -> Result<Duration> {
    match (u64::try_from(length.seconds), u32::try_from(length.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(Error::field(field, "must be a duration that is not negative")),
    }
}

/// Reads a required id.
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

/// Reads an optional id. In proto3, an absent id is an empty text.
pub fn parse_optional_id<T>(field: &str, text: &str) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    if text.is_empty() { Ok(None) } else { parse_id(field, text).map(Some) }
}
