//! The W3C trace context (Trace Context, level 1), which ties requests of different programs
//! together.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the ids.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with vendor-specific data of tracing systems.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-` 32 `-` 16 `-` 2.
const PARENT_BYTES: usize = 55;
/// Maximum size of a tracestate that is passed on, which is the minimum of the standard. A longer
/// one is dropped as a whole.
const STATE_BYTES: usize = 512;
/// Maximum number of members of a tracestate.
const STATE_MEMBERS: usize = 32;
const SAMPLED: u8 = 1;

/// A position in a trace: the trace, the parent span, and whether spans are recorded.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
    state: Arc<str>,
}

impl TraceContext {
    pub(crate) fn new(trace: [u8; 16], span: [u8; 8], sampled: bool, state: Arc<str>) -> Self {
        Self { trace, span, sampled, state }
    }

    /// Parses the values of both headers. Returns `None` if `traceparent` is malformed; the request
    /// then begins a trace of its own. A malformed `tracestate` alone is dropped. Empty texts stand
    /// for absent headers.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        if bytes.len() < PARENT_BYTES || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-'
        {
            return None;
        }
        let [version] = hex(&bytes[..2])?;
        // Later versions may have more after another dash. Version 255 is forbidden.
        let longer = bytes.len() > PARENT_BYTES;
        if version == 0xff || longer && (version == 0 || bytes[PARENT_BYTES] != b'-') {
            return None;
        }
        let (trace, span, [flags]) =
            (hex(&bytes[3..35])?, hex(&bytes[36..52])?, hex(&bytes[53..55])?);
        if trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self { trace, span, sampled: flags & SAMPLED != 0, state: state(tracestate) })
    }

    /// Parses a request's headers: exactly one `traceparent`; several `tracestate` headers form one
    /// list.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            return None;
        }
        let mut states =
            headers.get_all(TRACESTATE).iter().map(|value| value.to_str().unwrap_or_default());
        let first = states.next().unwrap_or_default();
        match states.next() {
            None => Self::parse(parent.to_str().ok()?, first),
            Some(second) => {
                let all: Vec<&str> = [first, second].into_iter().chain(states).collect();
                Self::parse(parent.to_str().ok()?, &all.join(","))
            }
        }
    }

    /// Replaces the trace headers of a request. Without a context, removes them.
    pub fn settle(headers: &mut HeaderMap, context: Option<&Self>) {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        let Some(context) = context else { return };
        // Hexadecimal digits and visible ASCII are always valid header values.
        if let Ok(value) = HeaderValue::try_from(context.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        if !context.state.is_empty()
            && let Ok(value) = HeaderValue::from_str(&context.state)
        {
            headers.insert(TRACESTATE, value);
        }
    }

    /// The names of the headers.
    pub const HEADERS: [HeaderName; 2] = [TRACEPARENT, TRACESTATE];

    /// Returns the value of the header `traceparent`, 55 bytes.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(PARENT_BYTES);
        text.push_str("00-");
        push_hex(&mut text, &self.trace);
        text.push('-');
        push_hex(&mut text, &self.span);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        text
    }

    /// Returns the value of the header `tracestate`, at most 512 bytes. Empty if there is none.
    #[must_use]
    pub fn tracestate(&self) -> &str {
        &self.state
    }

    /// Returns the trace id as 32 hexadecimal digits, for logs.
    #[must_use]
    pub fn trace_id(&self) -> String {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.trace);
        text
    }

    /// Whether the trace is sampled, so that its spans are recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    pub(crate) fn ids(&self) -> ([u8; 16], [u8; 8]) {
        (self.trace, self.span)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

/// Lower case only, as the standard requires.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Returns the list if it consists of members with a key and a value. Empty if all members are
/// blank.
fn state(text: &str) -> Arc<str> {
    let text = text.trim_matches([',', ' ', '\t']);
    let member = |member: &str| {
        member.trim().is_empty()
            || member
                .split_once('=')
                .is_some_and(|(key, value)| !key.trim().is_empty() && !value.trim().is_empty())
    };
    let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
    let good = text.len() <= STATE_BYTES
        && text.bytes().all(plain)
        && text.split(',').all(member)
        && text.split(',').count() <= STATE_MEMBERS;
    if good { text.into() } else { Arc::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_goes_out_as_it_came_in() {
        let context = TraceContext::parse(GOOD, "vendor=a,other=b").unwrap();
        assert_eq!(
            (context.traceparent().as_str(), context.tracestate()),
            (GOOD, "vendor=a,other=b")
        );
        assert_eq!(
            (context.trace_id().as_str(), context.is_sampled()),
            ("4bf92f3577b34da6a3ce929d0e0e4736", true)
        );
        // Only the flag "sampled" is known. A later version is answered with ours.
        let later = TraceContext::parse(
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe-what-ever",
            "",
        )
        .unwrap();
        assert_eq!(later.traceparent(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    }

    #[test]
    fn what_is_malformed_is_none() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(TraceContext::parse(bad, ""), None, "{bad}");
        }
        let long = format!("a={}", "b".repeat(STATE_BYTES));
        let many = vec!["a=b"; STATE_MEMBERS + 1].join(",");
        for bad in [
            long.as_str(),
            many.as_str(),
            "novalue",
            "a=\u{e9}",
            "a=b\r\nx: y",
            "=b",
            "a= ",
            "a= ,b=c",
        ] {
            assert_eq!(TraceContext::parse(GOOD, bad).unwrap().tracestate(), "", "{bad:?}");
        }
    }

    #[test]
    fn a_blank_state_is_absent() {
        for (given, kept) in [
            (" ", ""),
            ("\t \t", ""),
            (",", ""),
            (" , ,\t", ""),
            (" a=b ,", "a=b"),
            (",a=b,,c=d", "a=b,,c=d"),
        ] {
            assert_eq!(TraceContext::parse(GOOD, given).unwrap().tracestate(), kept, "{given:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        for blank in ["", " ", ","] {
            headers.append(TRACESTATE, HeaderValue::from_static(blank));
        }
        let context = TraceContext::of_headers(&headers);
        TraceContext::settle(&mut headers, context.as_ref());
        assert_eq!(headers.keys().collect::<Vec<_>>(), [TRACEPARENT]);
    }

    #[test]
    fn headers_are_settled() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of_headers(&headers), None);
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let context = TraceContext::of_headers(&headers).unwrap();
        assert_eq!(context.tracestate(), "a=1,b=2");
        TraceContext::settle(&mut headers, Some(&context));
        assert_eq!((headers.len(), headers[TRACESTATE].as_bytes()), (2, b"a=1,b=2".as_slice()));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of_headers(&headers), None, "two are none");
        TraceContext::settle(&mut headers, None);
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(parent in "\\PC{0,70}", tail in "[0-9a-f-]{40,60}",
            state in "\\PC{0,40}|[a=, \\t]{0,12}") {
            for text in [parent, format!("00-{tail}")] {
                if let Some(context) = TraceContext::parse(&text, &state) {
                    prop_assert_eq!(TraceContext::parse(&context.traceparent(),
                        context.tracestate()), Some(context));
                }
            }
        }
    }
}
