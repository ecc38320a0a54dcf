//! The headers of a request to an endpoint: which ones events and endpoints may set, and which only
//! Outrider sets. Every header that may be set is sent.

/// The header with the number of the attempt. The first attempt is 1.
pub const ATTEMPT: &str = "outrider-attempt";
/// The header with the type of the event.
pub const EVENT_TYPE: &str = "outrider-event-type";
/// The header with the ordering key of the event, if it has one.
pub const ORDERING_KEY: &str = "outrider-ordering-key";

/// The reason why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("must have a name of letters, digits and !#$%&'*+-.^_`|~")]
    Name,
    #[error("must have a value of visible ASCII characters, spaces and tabs")]
    Value,
    #[error(
        "must have a value that does not begin or end with a space or tab, which HTTP does not \
            keep (RFC 9110)"
    )]
    Padded,
    #[error("cannot be given: the connection to the endpoint needs it (RFC 9110)")]
    Connection,
    #[error("cannot be given: set the content_type of the event")]
    ContentType,
    #[error(
        "cannot be given: content-* headers describe the body, which is sent as it was published"
    )]
    Content,
    #[error(
        "cannot be given: answers are read as they are, so Outrider asks for the encoding \
            \"identity\""
    )]
    AcceptEncoding,
    #[error("cannot be given: webhook-* and outrider-* headers are set by Outrider")]
    Ours,
    #[error("cannot be given: Outrider sets it from the trace of the event")]
    Trace,
}

/// Checks whether events and endpoints may set this header. The name is in lower case.
///
/// # Errors
///
/// The reason why they may not.
pub fn check(name: &str, value: &str) -> Result<(), Refused> {
    if !is_token(name) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Refused::Name);
    }
    if let Some(refused) = reserved(name) {
        return Err(refused);
    }
    let padding = [' ', '\t'];
    if !value.bytes().all(is_value_byte) {
        Err(Refused::Value)
    } else if value.starts_with(padding) || value.ends_with(padding) {
        Err(Refused::Padded)
    } else {
        Ok(())
    }
}

/// Returns the reason why only Outrider sets this header (in lower case), if that is the case.
#[must_use]
pub fn reserved(name: &str) -> Option<Refused> {
    match name {
        "content-type" => Some(Refused::ContentType),
        "accept-encoding" => Some(Refused::AcceptEncoding),
        "traceparent" | "tracestate" => Some(Refused::Trace),
        "host" | "transfer-encoding" | "connection" | "keep-alive" | "upgrade" | "te"
        | "trailer" | "expect" => Some(Refused::Connection),
        _ if name.starts_with("content-") => Some(Refused::Content),
        _ if name.starts_with("proxy-") => Some(Refused::Connection),
        _ if name.starts_with("webhook-") || name.starts_with("outrider-") => Some(Refused::Ours),
        _ => None,
    }
}

/// Whether a text is a token of RFC 9110, like header names and the parts of media types.
#[must_use]
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a byte is permitted in the value of a given header.
#[must_use]
pub fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_given() {
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("user-agent", "Mine/1 (a; b)"),
            ("x-a", "1 \t2"),
            ("accept", ""),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (name, refused) in [
            ("", Refused::Name),
            ("a b", Refused::Name),
            ("A", Refused::Name),
            ("é", Refused::Name),
            ("host", Refused::Connection),
            ("proxy-authorization", Refused::Connection),
            ("te", Refused::Connection),
            ("content-type", Refused::ContentType),
            ("content-length", Refused::Content),
            ("accept-encoding", Refused::AcceptEncoding),
            ("webhook-id", Refused::Ours),
            (ATTEMPT, Refused::Ours),
            (EVENT_TYPE, Refused::Ours),
            (ORDERING_KEY, Refused::Ours),
            ("traceparent", Refused::Trace),
        ] {
            assert_eq!(check(name, "v"), Err(refused), "{name}");
        }
        for (value, refused) in [
            ("a\r\nb", Refused::Value),
            ("\0", Refused::Value),
            ("é", Refused::Value),
            ("\u{7f}", Refused::Value),
            (" a", Refused::Padded),
            ("a\t", Refused::Padded),
        ] {
            assert_eq!(check("x-a", value), Err(refused), "{value:?}");
        }
    }
}
