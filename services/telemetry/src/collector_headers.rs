//! Checks the headers for the collector, which the exporter reads from standard OpenTelemetry
//! variables. The exporter silently skips malformed entries, such as a mistyped access token. Here
//! they are refused.

use std::{ffi::OsString, str::FromStr as _};

use http::{HeaderName, HeaderValue};

/// The variable for spans. If it is set, even to nothing, the other one is not read.
const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
/// The variable for everything that is exported.
const ALL: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// Refuses a malformed variable. The error contains no value.
pub fn check(variable: impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    match (variable(TRACES), variable(ALL)) {
        // By the standard, an empty variable counts as not set, but the exporter would send no
        // header.
        (Some(traces), Some(all)) if traces.is_empty() && !all.is_empty() => {
            Err(format!("{TRACES} is set and empty, so that {ALL} is not read: unset it"))
        }
        (Some(traces), _) => check_entries(TRACES, &traces),
        (None, Some(all)) => check_entries(ALL, &all),
        (None, None) => Ok(()),
    }
}

fn check_entries(name: &str, given: &OsString) -> Result<(), String> {
    let text = given.to_str().ok_or_else(|| format!("{name} is not UTF-8"))?;
    match text.split(',').map(str::trim).position(|entry| !entry.is_empty() && !is_header(entry)) {
        None => Ok(()),
        Some(at) => Err(format!(
            "{name} must be NAME=VALUE pairs separated by commas: entry {} makes no header",
            at + 1
        )),
    }
}

fn is_header(entry: &str) -> bool {
    let Some((name, value)) = entry.split_once('=') else { return false };
    // Text that is not percent-encoded is sent as it is.
    let decoded = decoded(value.trim()).and_then(|value| String::from_utf8(value).ok());
    let value = decoded.as_deref().unwrap_or(value);
    HeaderName::from_str(name.trim()).is_ok()
        && !value.is_empty()
        && HeaderValue::from_str(value).is_ok()
}

/// Decodes percent-encoding. Returns `None` if it is malformed.
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
        for good in [
            "",
            ",",
            "authorization=Bearer%20abc",
            "a=1,b=2",
            "a=1, B=2,",
            "x-key===",
            "a=1,, ,b=2",
            "a=50%",
            "a=%zz",
            "a=%FF",
            "a-bin=1",
            "a=é",
        ] {
            assert_eq!(of(Some(good), None), Ok(()), "{good}");
        }
        for (bad, entry) in [
            ("abc", 1),
            ("a=1,b", 2),
            ("=1", 1),
            ("a b=1", 1),
            ("a=", 1),
            ("a=1,b= ,c=1", 2),
            ("a=1,,b", 3),
            ("a=%0A", 1),
            ("a=%7F", 1),
        ] {
            let refused = of(Some(bad), None).unwrap_err();
            assert!(
                refused.starts_with("OTEL_EXPORTER_OTLP_HEADERS ")
                    && refused.contains(&format!("entry {entry} ")),
                "{refused}"
            );
        }
        assert!(!of(Some("secret"), None).unwrap_err().contains("secret"));
        assert_eq!(of(Some("not read"), Some("a=1")), Ok(()));
        assert!(
            of(None, Some("bad")).unwrap_err().starts_with("OTEL_EXPORTER_OTLP_TRACES_HEADERS ")
        );
        for general in ["a=1", "bad"] {
            let refused = of(Some(general), Some("")).unwrap_err();
            assert!(
                refused.starts_with("OTEL_EXPORTER_OTLP_TRACES_HEADERS ")
                    && refused.contains("unset it"),
                "{refused}"
            );
        }
        assert_eq!(
            [of(None, None), of(None, Some("")), of(Some(""), Some(""))],
            [Ok(()), Ok(()), Ok(())]
        );
    }
}
