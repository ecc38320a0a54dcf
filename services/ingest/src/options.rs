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
    /// Steps that validating one payload by its schema may take; a million take a tenth to half a second. What takes more
    /// violates its schema. Default 1,000,000.
    pub validation_steps: u64,
    /// Validations that take more than a few milliseconds and run at once; further ones wait. Default 4.
    pub long_validations: usize,
    /// Memory for compiled schemas, in bytes; each counts as 16 times its text. Default 64 MiB.
    pub schema_cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_payload_bytes: MIB,
            max_batch_bytes: 4 * MIB,
            max_request_bytes: 6 * MIB,
            validation_steps: 1_000_000,
            long_validations: 4,
            schema_cache_bytes: 64 * 1024 * 1024,
        }
    }
}
