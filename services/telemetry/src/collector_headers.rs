//! The headers for the collector, which the exporter takes from standard variables of OpenTelemetry. It passes over entries that are no
//! headers, an access token with a mistake in it among them; here they are refused.

use std::{ffi::OsString, str::FromStr as _};

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};

/// The variables, the stronger one first: where it is set, the other one is not read.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// What is wrong with the variable in force, if anything. No value is told.
pub fn check(variable: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    let Some((name, given)) = VARIABLES.iter().find_map(|name| Some((name, variable(name)?))) else { return Ok(()) };
    let text = given.to_str().ok_or_else(|| format!("{name} is not UTF-8"))?;
    match text.split_terminator(',').position(|entry| !is_header(entry.trim())) {
        None => Ok(()),
        Some(at) => Err(format!("{name} must be NAME=VALUE pairs separated by commas: entry {} makes no header", at + 1)),
    }
}

fn is_header(entry: &str) -> bool {
    let Some((name, value)) = entry.split_once('=') else { return false };
    // Names of HTTP/2 are in lower case, and others are made so; a name in -bin would be of a binary header.
    let name = name.trim().to_ascii_lowercase();
    let value = decoded(value.trim()).and_then(|value| String::from_utf8(value).ok());
    AsciiMetadataKey::from_str(&name).is_ok() && value.is_some_and(|value| AsciiMetadataValue::from_str(&value).is_ok())
}

/// Without percent-encoding; none where it is malformed.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(general: Option<&str>, traces: Option<&str>) -> Result<(), String> {
        check(|name| if name.contains("TRACES") { traces } else { general }.map(OsString::from))
    }

    #[test]
    fn every_entry_must_make_a_header() {
        for good in ["", "authorization=Bearer%20abc", "a=1,b=2", "a=1, B=2,", "x-key==="] {
            assert_eq!(of(Some(good), None), Ok(()), "{good}");
        }
        for (bad, entry) in
            [("abc", 1), ("a=1,b", 2), ("=1", 1), ("a b=1", 1), ("a=%2", 1), ("a=%zz", 1), ("a=1,,b=2", 2), ("a=%0A", 1)]
        {
            let refused = of(Some(bad), None).unwrap_err();
            assert!(
                refused.starts_with("OTEL_EXPORTER_OTLP_HEADERS ") && refused.contains(&format!("entry {entry} ")),
                "{refused}"
            );
        }
        assert!(!of(Some("secret"), None).unwrap_err().contains("secret"));
        assert_eq!(of(Some("not read"), Some("a=1")), Ok(()));
        assert!(of(None, Some("bad")).unwrap_err().starts_with("OTEL_EXPORTER_OTLP_TRACES_HEADERS "));
        assert_eq!(of(None, None), Ok(()));
    }
}
