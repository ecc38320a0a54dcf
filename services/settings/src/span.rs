//! Lengths of time as the configuration shows them: "500ms", "15s", "24h".

use std::{fmt, time::Duration};

/// A length of time, shown with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A length of time in milliseconds.
#[must_use]
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A length of time in seconds.
#[must_use]
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A length of time in minutes.
#[must_use]
pub const fn minutes(minutes: u64) -> Duration {
    seconds(60 * minutes)
}

/// A length of time in hours.
#[must_use]
pub const fn hours(hours: u64) -> Duration {
    minutes(60 * hours)
}

/// A length of time in days of 24 hours.
#[must_use]
pub const fn days(days: u64) -> Duration {
    hours(24 * days)
}

impl fmt::Display for Span {
    /// The largest unit is the day: humantime's months have 30.44 days.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 3600;
        let days = self.0.as_secs() / DAY;
        let rest = humantime::format_duration(self.0 - Duration::from_secs(days * DAY));
        match days {
            0 => return rest.fmt(f),
            1 => f.write_str("1day")?,
            _ => write!(f, "{days}days")?,
        }
        if rest.get_ref().is_zero() { Ok(()) } else { write!(f, " {rest}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_as_it_is_written() {
        let spans = [
            (0, "0s"),
            (90, "1m 30s"),
            (86_400, "1day"),
            (90 * 86_400, "90days"),
            (400 * 86_400 + 3_601, "400days 1h 1s"),
        ];
        for (seconds, text) in spans {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
            assert_eq!(humantime::parse_duration(text).unwrap(), Duration::from_secs(seconds));
        }
    }
}
