//! Idempotency keys: which rows claim a key, and what the holder of a key means for an event.

use std::{collections::HashMap, time::Duration};

use outrider_model::{EventId, ProjectId, Timestamp};

use super::{Accepted, FoundEvent, LedgerError, NewEvent, UsedKey, codec::day_of};

/// Around midnight a key is claimed for both days, so that processes whose clocks or statements are
/// this far apart cannot both win.
const OVERLAP: Duration = Duration::from_secs(10);
/// So long an event may wait for its commit and be claimed for the day of that, too; longer only if
/// the clock leapt. So a key has two rows at most.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A key of a project.
pub(super) type Key<'a> = (ProjectId, &'a str);

/// An event that claims a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyClaim<'a> {
    pub key: Key<'a>,
    pub holder: Holder,
    first_day: i32,
    last_day: i32,
}

/// The event that has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub event: EventId,
    pub fingerprint: [u8; 32],
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

impl<'a> KeyClaim<'a> {
    /// A claim that is committed from `now` on.
    fn new(key: Key<'a>, holder: Holder, now: Timestamp) -> Self {
        let arrived = holder.created_at;
        let committed = now.clamp(arrived, arrived.plus(LONGEST_WAIT));
        Self {
            key,
            holder,
            first_day: day_of(arrived.minus(OVERLAP)),
            last_day: day_of(committed.plus(OVERLAP)),
        }
    }

    /// The days for which a row is written: the event's own, and the neighbour when midnight is
    /// near or passed while it waited.
    pub fn days(&self) -> impl Iterator<Item = i32> + use<> {
        self.first_day..=self.last_day
    }
}

/// The keys of a batch that is committed from `now` on, sorted, each claimed by the first event
/// that bears it.
pub(super) fn claims(batch: &[NewEvent], now: Timestamp) -> Result<Vec<KeyClaim<'_>>, LedgerError> {
    let mut claims = Vec::new();
    for new in batch {
        let event = &new.event;
        let Some(key) = event.idempotency_key.as_deref() else { continue };
        let fingerprint = new.fingerprint.ok_or_else(|| {
            LedgerError::Data("an event with an idempotency key has no fingerprint".to_owned())
        })?;
        let holder = Holder {
            event: event.id,
            fingerprint,
            delivery_count: event.delivery_count,
            created_at: event.created_at,
        };
        claims.push(KeyClaim::new((event.project, key), holder, now));
    }
    // Stable: of equal keys the first stays.
    claims.sort_by_key(|claim| claim.key);
    claims.dedup_by_key(|claim| claim.key);
    Ok(claims)
}

/// The days in which an earlier use of a key may stand.
pub(super) fn lookup_days(claims: &[KeyClaim<'_>], keys_since: Timestamp) -> (i32, i32) {
    let first = claims.iter().map(|claim| claim.first_day).min().unwrap_or(0);
    let last = claims.iter().map(|claim| claim.last_day).max().unwrap_or(0);
    (day_of(keys_since).min(first - 1), last + 1)
}

/// The days in which a key that is still good may stand, as seen at `keys_since`: whoever asks does
/// not say what day it is.
pub(super) fn days_since(keys_since: Timestamp) -> (i32, i32) {
    (day_of(keys_since), i32::MAX)
}

/// What is found of a key, given who holds it now.
pub(super) fn found(wanted: &UsedKey, holder: Option<Holder>) -> Option<FoundEvent> {
    let Holder { event, delivery_count, created_at, .. } =
        holder.filter(|holder| holder.fingerprint == wanted.fingerprint)?;
    Some(FoundEvent { event, delivery_count, created_at })
}

/// What became of each event, given who holds the keys now.
pub(super) fn answers(
    batch: &[NewEvent],
    holders: &HashMap<Key<'_>, Holder>,
) -> Result<Vec<Accepted>, LedgerError> {
    let answer = |new: &NewEvent| {
        let Some(key) = new.event.idempotency_key.as_deref() else { return Ok(Accepted::New) };
        match holders.get(&(new.event.project, key)) {
            // Expired between two statements: a retry will win it.
            None => Err(LedgerError::Unavailable(
                "an idempotency key expired at this moment".to_owned(),
            )),
            Some(holder) if holder.event == new.event.id => Ok(Accepted::New),
            Some(holder) if Some(holder.fingerprint) == new.fingerprint => {
                Ok(Accepted::Duplicate {
                    event: holder.event,
                    delivery_count: holder.delivery_count,
                    created_at: holder.created_at,
                })
            }
            Some(_) => Ok(Accepted::Conflict),
        }
    };
    batch.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_days_are_claimed_only_near_midnight() {
        let days = |arrived: i64, waited: i64| {
            let created_at = Timestamp(arrived);
            let holder = Holder {
                event: EventId::new(created_at, 1),
                fingerprint: [0; 32],
                delivery_count: 0,
                created_at,
            };
            let claim = KeyClaim::new(
                (ProjectId::new(created_at, 1), "key"),
                holder,
                Timestamp(arrived + waited),
            );
            claim.days().collect::<Vec<_>>()
        };
        const DAY: i64 = 86_400_000_000;
        let (midnight, overlap, hour) = (20_000 * DAY, 10_000_000, 3_600_000_000);
        assert_eq!(days(midnight, 0), [19_999, 20_000]);
        assert_eq!(days(midnight + overlap - 1, 0), [19_999, 20_000]);
        assert_eq!(days(midnight + overlap, hour), [20_000]);
        assert_eq!(days(midnight - overlap, 0), [19_999, 20_000]);
        assert_eq!(days(midnight - overlap - 1, 0), [19_999]);
        // It waited, or the clock went back or leapt meanwhile.
        assert_eq!(days(midnight - overlap - 1, 1), [19_999, 20_000]);
        assert_eq!(days(midnight - overlap - 1, -DAY), [19_999]);
        assert_eq!(days(midnight - hour, 10 * DAY), [19_999, 20_000]);
        assert_eq!(days(midnight - 2 * hour, 10 * DAY), [19_999]);
    }
}
