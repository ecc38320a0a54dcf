//! What a job takes of a resource, and what its endpoint's window learns.

use outrider_model::{Heard, Timestamp};

/// What was heard of an endpoint, and what its window has to do with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    pub(crate) heard: Heard,
    /// The endpoint's limit of requests under way.
    pub(crate) most: u32,
    pub(crate) at: Timestamp,
}

/// How much a job takes of the resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// While its endpoint answers, and where there are no windows.
    pub(super) answering: u32,
    /// While its endpoint has not answered lately, or its last request timed out.
    pub(super) silent: u32,
}

impl Amount {
    /// The same for every endpoint.
    pub(crate) fn always(amount: u32) -> Self {
        Self { answering: amount, silent: amount }
    }

    /// 1 while its endpoint answers, and `silent` while it does not.
    pub(crate) fn one_or(silent: u32) -> Self {
        Self { answering: 1, silent }
    }

    pub(super) fn at_most(self, most: u32) -> Self {
        Self { answering: self.answering.min(most), silent: self.silent.min(most) }
    }
}
