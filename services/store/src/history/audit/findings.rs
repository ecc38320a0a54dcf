//! The findings of an audit.

use outrider_model::{DeliveryId, EventId, ProjectId};
use uuid::Uuid;

/// A kind of discrepancy. The numbers are those in the statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discrepancy {
    /// An event has fewer deliveries than its commit wrote.
    MissingDelivery = 1,
    /// An event has more delivery rows than its commit wrote, or several for one endpoint, for
    /// example a pending one and an ended one.
    DoubledDelivery = 2,
    /// A replay is both pending and ended.
    DoubledReplay = 3,
    /// The event of a delivery is missing.
    DeliveryWithoutEvent = 4,
    /// A delivery counts attempts that are missing, or was delivered without a successful attempt.
    MissingAttempt = 5,
    /// The delivery of an attempt is missing.
    AttemptWithoutDelivery = 6,
    /// The delivery of a requested replay is missing.
    MissingReplay = 7,
    /// A delivery has the number of a replay that nobody requested.
    UnorderedReplay = 8,
    /// The event of an idempotency key is missing, or has another key.
    KeyWithoutEvent = 9,
}

impl Discrepancy {
    /// All kinds, in the order of their numbers.
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

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number.checked_sub(1)?).ok().and_then(|index| Self::ALL.get(index)).copied()
    }

    /// The name in output and metrics.
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

    /// Whether a delivery that was owed is missing.
    #[must_use]
    pub fn is_loss(self) -> bool {
        matches!(self, Self::MissingDelivery | Self::MissingReplay)
    }

    /// Whether a finding names the event. Otherwise it names the delivery.
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

/// A discrepancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub kind: Discrepancy,
    pub project: ProjectId,
    /// The event or the delivery, depending on the kind.
    pub id: Uuid,
    /// The number of rows that are missing or in excess.
    pub count: u64,
}

impl Finding {
    /// The id in its public form: `evt_…` or `dlv_…`.
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
