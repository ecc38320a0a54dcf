//! Faults of endpoints in an exchange.

use std::fmt;

use crate::bounds::WireBounds;

/// The reason why an exchange was given up: the endpoint exceeded a bound, or did not speak HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// Too many interim responses.
    Interim = 1,
    /// Interim responses, empty lines and the head are too large together.
    Head,
    /// The endpoint switched the protocol without a request to do so.
    Switched,
    /// Too many bytes.
    Bytes,
    /// Too many reads.
    Reads,
    /// The response is not HTTP/1.
    NotHttp,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Interim, Self::Head, Self::Switched, Self::Bytes, Self::Reads, Self::NotHttp];

    /// Explains the fault to the owner of the endpoint.
    pub(crate) fn explain(self, bounds: &WireBounds) -> String {
        match self {
            Self::Interim => format!("more than {} interim answers", bounds.interim_answers),
            Self::Head => "the head of the answer is too large".to_owned(),
            Self::Switched => "the endpoint switched protocols, which was not asked for".to_owned(),
            Self::Bytes => format!("more than {} bytes on the wire for one exchange", bounds.bytes),
            Self::Reads => {
                format!("more than {} pieces on the wire for one exchange", bounds.reads)
            }
            Self::NotHttp => "the answer is not HTTP/1.1".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an exchange with an endpoint was given up: ")?;
        f.write_str(match self {
            Self::Interim => "too many interim answers",
            Self::Head => "too large a head",
            Self::Switched => "another protocol",
            Self::Bytes => "too many bytes",
            Self::Reads => "too many pieces",
            Self::NotHttp => "no HTTP",
        })
    }
}

impl std::error::Error for Fault {}
