//! What an audit may find.

use outrider_model::{DeliveryId, EventId, ProjectId};
use uuid::Uuid;

/// What does not add up. The numbers are those in the statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discrepancy {
    /// An event has fewer deliveries than its commit wrote.
    MissingDelivery = 1,
    /// An event has more delivery rows than its commit wrote, or several for one endpoint: one
    /// pending beside an ended one, say.
    DoubledDelivery = 2,
    /// A replay is pending and ended at once.
    DoubledReplay = 3,
    /// A delivery's event is not there.
    DeliveryWithoutEvent = 4,
    /// A delivery counts attempts that are not there, or was delivered without an attempt that
    /// succeeded.
    MissingAttempt = 5,
    /// An attempt's delivery is not there.
    AttemptWithoutDelivery = 6,
    /// A replay of an event was ordered and its delivery is not there.
    MissingReplay = 7,
    /// A delivery bears the number of a replay that nobody ordered.
    UnorderedReplay = 8,
    /// The event of an idempotency key is not there, or bears another key.
    KeyWithoutEvent = 9,
}

impl Discrepancy {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::MissingDelivery,
        Self::DoubledDelivery,
        Self::DoubledReplay,
        Self::DeliveryWithoutEvent,
        Self::MissingAttempt,
        Self::AttemptWithoutDelivery,
        Self::MissingReplay,
        Self::UnorderedReplay,
        Self::KeyWithoutEvent,
    ];

    /// By its number.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number.checked_sub(1)?).ok().and_then(|index| Self::ALL.get(index)).copied()
    }

    /// Its name in output and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingDelivery => "missing-delivery",
            Self::DoubledDelivery => "doubled-delivery",
            Self::DoubledReplay => "doubled-replay",
            Self::DeliveryWithoutEvent => "delivery-without-event",
            Self::MissingAttempt => "missing-attempt",
            Self::AttemptWithoutDelivery => "attempt-without-delivery",
            Self::MissingReplay => "missing-replay",
            Self::UnorderedReplay => "unordered-replay",
            Self::KeyWithoutEvent => "key-without-event",
        }
    }

    /// Whether a delivery that was owed is nowhere.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::MissingDelivery | Self::MissingReplay)
    }

    /// Whether a finding names the event; else it names the delivery.
    fn names_event(self) -> bool {
        matches!(
            self,
            Self::MissingDelivery
                | Self::DoubledDelivery
                | Self::MissingReplay
                | Self::KeyWithoutEvent
        )
    }
}

/// One thing that does not add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub kind: Discrepancy,
    pub project: ProjectId,
    /// The event or the delivery, as the kind says.
    pub id: Uuid,
    /// How many rows are missing or too many.
    pub count: u64,
}

impl Finding {
    /// The id as callers know it: `evt_…` or `dlv_…`.
    #[must_use]
    pub fn public_id(&self) -> String {
        if self.kind.names_event() {
            EventId(self.id).to_string()
        } else {
            DeliveryId(self.id).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_numbers() {
        for kind in Discrepancy::ALL {
            assert_eq!(Discrepancy::from_number(kind as i64), Some(kind));
        }
        assert!(
            [i64::MIN, -1, 0, 10]
                .into_iter()
                .all(|number| Discrepancy::from_number(number).is_none())
        );
    }
}
