//! Formats given texts and durations for messages to people.

use std::{fmt, time::Duration};

/// Maximum number of characters of a given text that are shown.
const SHOWN: usize = 128;

/// Quotes a text as in JSON, without anything that controls a terminal, and cuts it after 128
/// characters.
#[must_use]
pub fn quoted(text: &str) -> impl fmt::Display + '_ {
    Quoted(text)
}

/// Joins texts with commas.
#[must_use]
pub fn joined<'t, T: fmt::Display>(texts: &'t [T]) -> impl fmt::Display + 't {
    Joined(texts)
}

/// Formats a duration with units: "250 ms", "15 s", "1 min 30 s". From one second, shows whole
/// milliseconds.
#[must_use]
pub fn span(length: Duration) -> impl fmt::Display {
    Span(length)
}

struct Quoted<'t>(&'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(SHOWN) {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                hidden if hidden.is_control() || turns(hidden) => {
                    write!(f, "\\u{:04x}", u32::from(hidden))?
                }
                plain => write!(f, "{plain}")?,
            }
        }
        f.write_str(if characters.next().is_some() { "…\"" } else { "\"" })
    }
}

/// Whether a character changes the direction of text.
fn turns(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Joined<'t, T>(&'t [T]);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, text) in self.0.iter().enumerate() {
            write!(f, "{}{text}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, below) = (self.0.as_secs(), self.0.subsec_nanos());
        if seconds == 0 && below > 0 {
            // The largest unit that is not zero.
            let (one, unit) = [(1_000_000, "ms"), (1_000, "µs")]
                .into_iter()
                .find(|(one, _)| below >= *one)
                .unwrap_or((1, "ns"));
            return write!(f, "{} {unit}", below / one);
        }
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
            (u64::from(below / 1_000_000), "ms"),
        ];
        let mut first = true;
        for (amount, unit) in parts.into_iter().filter(|(amount, _)| *amount > 0) {
            write!(f, "{}{amount} {unit}", if first { "" } else { " " })?;
            first = false;
        }
        if first { f.write_str("0 s") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_quoted_and_commands_no_terminal() {
        for (text, shown) in [
            ("", r#""""#),
            ("x-a", r#""x-a""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("a\n\r\t\0\u{1b}[2J", r#""a\n\r\t\u0000\u001b[2J""#),
            ("Zoë\u{202e}\u{9b}", "\"Zoë\\u202e\\u009b\""),
        ] {
            assert_eq!(quoted(text).to_string(), shown);
        }
        let cut = quoted(&"é".repeat(SHOWN + 1)).to_string();
        assert_eq!(cut, format!("\"{}…\"", "é".repeat(SHOWN)));
        assert_eq!(quoted(&"é".repeat(SHOWN)).to_string(), format!("\"{}\"", "é".repeat(SHOWN)));
    }

    #[test]
    fn lengths_of_time_have_units() {
        for (length, shown) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_nanos(7), "7 ns"),
            (Duration::from_micros(20), "20 µs"),
            (Duration::from_millis(250), "250 ms"),
            (Duration::from_millis(1_500), "1 s 500 ms"),
            (Duration::from_secs(15), "15 s"),
            (Duration::from_secs(90), "1 min 30 s"),
            (Duration::from_secs(90_000), "1 d 1 h"),
        ] {
            assert_eq!(span(length).to_string(), shown);
        }
    }

    #[test]
    fn a_row_has_commas() {
        assert_eq!(joined(&[1, 2]).to_string(), "1, 2");
        assert_eq!(joined::<&str>(&[]).to_string(), "");
    }
}
