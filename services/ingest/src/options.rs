//! What ingest takes in: its limits.

/// Limits on what is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// One payload, decoded, in bytes. Default 1 MiB.
    pub max_payload_bytes: usize,
    /// All payloads of one batch, in bytes. Default 4 MiB.
    pub max_batch_bytes: usize,
    /// One gRPC message, in bytes. Default 6 MiB.
    pub max_request_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { max_payload_bytes: MIB, max_batch_bytes: 4 * MIB, max_request_bytes: 6 * MIB }
    }
}
