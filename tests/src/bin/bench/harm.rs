//! Losses and duplicates, which no load may cause.

use std::{fmt, ops::AddAssign};

/// The losses and duplicates of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Harm {
    /// Deliveries of accepted events that did not arrive.
    pub lost: usize,
    /// Deliveries that arrived again.
    pub duplicates: usize,
    /// The discrepancies that `outrider verify-ledger` found, or 0 if it did not run.
    pub findings: usize,
}

impl Harm {
    pub fn none(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Harm {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.findings += other.findings;
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, duplicates, findings } = self;
        write!(f, "{lost} lost, {duplicates} duplicates, {findings} findings of verify-ledger")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harm_of_several_runs_adds_up() {
        let mut sum = Harm::default();
        assert!(sum.none());
        sum += Harm { lost: 1, ..Harm::default() };
        sum += Harm { duplicates: 2, findings: 3, ..Harm::default() };
        assert!(!sum.none());
        assert_eq!(sum.to_string(), "1 lost, 2 duplicates, 3 findings of verify-ledger");
    }
}
