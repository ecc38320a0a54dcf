//! Lengths of time in configuration: "500ms", "15s", "24h".

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A length of time, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Of whole milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Display for Span {
    /// In days and what is shorter: nobody asked for months of 30.44 days.
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

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = humantime::parse_duration(&text);
        parsed.map(Self).map_err(|error| {
            D::Error::custom(format!("\"{text}\" is not a length of time such as \"15s\": {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let spans = [
            (0, "0s"),
            (90, "1m 30s"),
            (86_400, "1day"),
            (90 * 86_400, "90days"),
            (400 * 86_400 + 3_601, "400days 1h 1s"),
        ];
        for (seconds, text) in spans {
            assert_eq!(Span::seconds(seconds).to_string(), text);
            assert_eq!(humantime::parse_duration(text).unwrap(), Duration::from_secs(seconds));
        }
    }
}
