//! Ranges and lists of ids.

use std::cmp::{max, min};

use outrider_model::{PageRequest, Timestamp, id::uuid_bound, page::Cursor};
use sea_orm::{
    ColumnTrait,
    sea_query::{ExprTrait, SimpleExpr},
};
use uuid::Uuid;

/// The ids from `from` on and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub from: Uuid,
    pub until: Uuid,
}

impl IdRange {
    pub const ALL: Self = Self { from: Uuid::nil(), until: Uuid::max() };

    /// From the lowest to the highest of some ids. None for an empty list.
    pub fn spanning(ids: &[Uuid]) -> Option<Self> {
        let (from, last) = (ids.iter().min()?, ids.iter().max()?);
        Some(Self { from: *from, until: Uuid::from_u128(last.as_u128().saturating_add(1)) })
    }

    /// The condition that an id lies in the range. It lets the database skip partitions.
    pub fn condition<C: ColumnTrait>(self, id: C) -> SimpleExpr {
        id.gte(self.from).and(id.lt(self.until))
    }

    /// The ids of a time range, to the millisecond.
    pub fn during(self, start: Option<Timestamp>, end: Option<Timestamp>) -> Self {
        let from = start.map_or(self.from, |start| max(self.from, uuid_bound(start)));
        let until = end.map_or(self.until, |end| min(self.until, uuid_bound(end)));
        Self { from, until }
    }

    /// The ids of a millisecond.
    pub fn millisecond(self, at: Timestamp) -> Self {
        self.during(Some(at), Some(Timestamp(at.0.saturating_add(1_000))))
    }

    /// The ids in both ranges.
    pub fn intersect(self, other: Self) -> Self {
        Self { from: max(self.from, other.from), until: min(self.until, other.until) }
    }

    /// The ids that a page may contain.
    pub fn of_page(self, page: PageRequest) -> Self {
        match page.from {
            None => self,
            Some(Cursor::After(id)) => Self { until: min(self.until, id), ..self },
            Some(Cursor::Before(id)) => Self {
                from: max(self.from, Uuid::from_u128(id.as_u128().saturating_add(1))),
                ..self
            },
        }
    }
}

/// Repeats the last id of a list up to a length that is a power of two, so that only a few
/// statements are prepared, and not one for each length.
pub(crate) fn padded(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    if let Some(last) = ids.last().copied() {
        ids.resize(ids.len().next_power_of_two(), last);
    }
    ids
}
