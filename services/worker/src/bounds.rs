//! The bounds on what one exchange may take from the wire.

use outrider_model::{Error, Result};

/// The bounds on what one exchange may take from the wire, whatever the endpoint sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireBounds {
    /// Interim answers (1xx) before the answer; more are a bad response. Their bytes count towards
    /// `response_head_bytes`. Default 8.
    pub interim_answers: usize,
    /// Bytes read from the connection in one exchange, with TLS records, heads, chunk sizes and
    /// trailers; the TLS handshake may take as many again. At least `response_head_bytes +
    /// response_read_bytes`. Default 256 KiB.
    pub bytes: usize,
    /// Reads from the connection in one exchange: an endpoint that sends single bytes wakes the
    /// worker for each of them. The TLS handshake may take as many again. Default 1024.
    pub reads: usize,
}

impl Default for WireBounds {
    fn default() -> Self {
        Self { interim_answers: 8, bytes: 256 << 10, reads: 1_024 }
    }
}

impl WireBounds {
    /// Refuses bounds that an ordinary answer of `head` and `body` bytes would exceed.
    pub(crate) fn check(&self, head: usize, body: usize) -> Result<()> {
        if self.bytes < head.saturating_add(body) {
            return Err(Error::field(
                "response_wire_bytes",
                "must be at least response_head_bytes + response_read_bytes",
            ));
        }
        if self.reads < 64 {
            return Err(Error::field("response_wire_reads", "must be at least 64"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_answer_must_fit() {
        let bounds = WireBounds::default();
        assert_eq!(bounds.check(64 << 10, 64 << 10), Ok(()));
        assert_eq!(
            bounds.check(usize::MAX, 1).unwrap_err().violations[0].field,
            "response_wire_bytes"
        );
        assert_eq!(
            WireBounds { reads: 63, ..bounds }.check(0, 0).unwrap_err().violations[0].field,
            "response_wire_reads"
        );
    }
}
