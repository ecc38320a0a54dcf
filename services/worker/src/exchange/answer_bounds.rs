//! The bounds on what is read and kept of an answer.

use crate::options::Options;

/// The bounds on what is read and kept of an answer.
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

/// The bounds on what comes before a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadBounds {
    /// Interim answers.
    pub(crate) interim: usize,
    /// Bytes of the head, and of the interim answers and empty lines before it.
    pub(crate) bytes: usize,
    /// What is kept of its header fields.
    pub(crate) kept: AnswerBounds,
}
