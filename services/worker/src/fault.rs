//! What an endpoint may not do in an exchange.

use std::fmt;

use crate::bounds::WireBounds;

/// Why an exchange was given up: what the endpoint sent is beyond the bounds, or no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// More interim answers than are read.
    Interim = 1,
    /// Interim answers, empty lines and the head are too large together.
    Head,
    /// The protocol was switched without being asked.
    Switched,
    /// More bytes than are read.
    Bytes,
    /// More reads than are made.
    Reads,
    /// No answer of HTTP/1.
    NotHttp,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Interim, Self::Head, Self::Switched, Self::Bytes, Self::Reads, Self::NotHttp];

    /// In words for the owner of the endpoint.
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
