//! The amount of a resource that a job takes, and what the window of its endpoint learns.

use outrider_model::{Heard, Timestamp};

/// What a request showed about an endpoint, for its window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    pub(crate) heard: Heard,
    /// The endpoint's limit of requests in flight.
    pub(crate) most: u32,
    pub(crate) at: Timestamp,
}

/// The amount of the resource that a job takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// While its endpoint answers, and if there are no windows.
    pub(super) answering: u32,
    /// While its endpoint has not answered recently, or its last request timed out.
    pub(super) silent: u32,
}

impl Amount {
    /// Returns the same amount for every endpoint.
    pub(crate) fn always(amount: u32) -> Self {
        Self { answering: amount, silent: amount }
    }

    /// Returns 1 while the endpoint answers, and `silent` while it does not.
    pub(crate) fn one_or(silent: u32) -> Self {
        Self { answering: 1, silent }
    }

    pub(super) fn at_most(self, most: u32) -> Self {
        Self { answering: self.answering.min(most), silent: self.silent.min(most) }
    }
}
