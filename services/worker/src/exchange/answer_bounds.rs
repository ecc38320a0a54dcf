//! The bounds on the read and the recorded part of a response.

use crate::options::Options;

/// The bounds on the read and the recorded part of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerBounds {
    pub(crate) kept_bytes: usize,
    pub(crate) read_bytes: usize,
    pub(crate) headers: usize,
    pub(crate) header_bytes: usize,
}

impl AnswerBounds {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            kept_bytes: options.response_kept_bytes,
            read_bytes: options.response_read_bytes,
            headers: options.response_headers_kept,
            header_bytes: options.response_headers_kept_bytes,
        }
    }
}

/// The bounds on the bytes before a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// Maximum number of interim responses.
    pub(crate) interim: usize,
    /// Maximum size of the head with the interim responses and empty lines before it, in bytes.
    pub(crate) bytes: usize,
    /// The bounds on the recorded header fields.
    pub(crate) kept: AnswerBounds,
}
