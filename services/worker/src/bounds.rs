//! The bounds on what one exchange may take from the wire.

/// The bounds on what one exchange may take from the wire, whatever the endpoint sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WireBounds {
    /// Interim answers (1xx) before the answer.
    pub(crate) interim_answers: usize,
    /// Bytes read from the connection, with TLS records, heads, chunk sizes and trailers.
    pub(crate) bytes: usize,
    /// Reads from the connection: an endpoint that sends single bytes wakes the worker for each of
    /// them.
    pub(crate) reads: usize,
}
