//! The bounds on what one exchange may take from the wire.

/// The bounds on what one exchange may take from the wire, whatever the endpoint sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireBounds {
    /// Maximum number of interim responses (1xx) before the response.
    pub(crate) interim_answers: usize,
    /// Maximum number of bytes read from the connection, including TLS records, heads, chunk sizes
    /// and trailers.
    pub(crate) bytes: usize,
    /// Maximum number of reads from the connection. An endpoint that sends single bytes wakes the
    /// worker for each of them.
    pub(crate) reads: usize,
}
