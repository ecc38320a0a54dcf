//! Idempotency keys: which rows claim a key, and what the holder of a key means for an event.

use std::collections::HashMap;

use outrider_model::{EventId, ProjectId, Timestamp};

use super::{Accepted, FoundEvent, LedgerError, NewEvent, UsedKey, codec::day_of};

/// Around midnight a key is claimed for both days, so that processes whose clocks or statements are this far apart cannot both
/// win.
const OVERLAP_MICROS: i64 = 10_000_000;
const DAY_MICROS: i64 = 86_400_000_000;

/// A key of a project.
pub(super) type Key<'a> = (ProjectId, &'a str);

/// An event that claims a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyClaim<'a> {
    pub key: Key<'a>,
    pub holder: Holder,
}

/// The event that has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub event: EventId,
    pub fingerprint: [u8; 32],
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

impl Holder {
    /// The days for which a row is written: the event's own, and the neighbour when midnight is near.
    pub fn days(&self) -> impl Iterator<Item = i32> + use<> {
        let day = day_of(self.created_at);
        let since_midnight = self.created_at.0.rem_euclid(DAY_MICROS);
        let first = if since_midnight < OVERLAP_MICROS { day - 1 } else { day };
        let last = if since_midnight >= DAY_MICROS - OVERLAP_MICROS { day + 1 } else { day };
        first..=last
    }
}

/// The keys of a batch, sorted, each claimed by the first event that bears it.
pub(super) fn claims(batch: &[NewEvent]) -> Result<Vec<KeyClaim<'_>>, LedgerError> {
    let mut claims = Vec::new();
    for new in batch {
        let event = &new.event;
        let Some(key) = event.idempotency_key.as_deref() else { continue };
        let fingerprint =
            new.fingerprint.ok_or_else(|| LedgerError::Data("an event with an idempotency key has no fingerprint".to_owned()))?;
        let holder = Holder { event: event.id, fingerprint, delivery_count: event.delivery_count, created_at: event.created_at };
        claims.push(KeyClaim { key: (event.project, key), holder });
    }
    // Stable: of equal keys the first stays.
    claims.sort_by_key(|claim| claim.key);
    claims.dedup_by_key(|claim| claim.key);
    Ok(claims)
}

/// The days in which an earlier use of a key may stand.
pub(super) fn lookup_days(claims: &[KeyClaim<'_>], keys_since: Timestamp) -> (i32, i32) {
    let last = claims.iter().map(|claim| day_of(claim.holder.created_at)).max().unwrap_or(0);
    (day_of(keys_since).min(last - 1), last + 1)
}

/// The days in which a key that is still good may stand, as seen at `keys_since`: whoever asks does not say what day it is.
pub(super) fn days_since(keys_since: Timestamp) -> (i32, i32) {
    (day_of(keys_since), i32::MAX)
}

/// What is found of a key, given who holds it now.
pub(super) fn found(wanted: &UsedKey, holder: Option<Holder>) -> Option<FoundEvent> {
    let Holder { event, delivery_count, created_at, .. } = holder.filter(|holder| holder.fingerprint == wanted.fingerprint)?;
    Some(FoundEvent { event, delivery_count, created_at })
}

/// What became of each event, given who holds the keys now.
pub(super) fn answers(batch: &[NewEvent], holders: &HashMap<Key<'_>, Holder>) -> Result<Vec<Accepted>, LedgerError> {
    let answer = |new: &NewEvent| {
        let Some(key) = new.event.idempotency_key.as_deref() else { return Ok(Accepted::New) };
        match holders.get(&(new.event.project, key)) {
            // Expired between two statements: a retry will win it.
            None => Err(LedgerError::Unavailable("an idempotency key expired at this moment".to_owned())),
            Some(holder) if holder.event == new.event.id => Ok(Accepted::New),
            Some(holder) if Some(holder.fingerprint) == new.fingerprint => Ok(Accepted::Duplicate {
                event: holder.event,
                delivery_count: holder.delivery_count,
                created_at: holder.created_at,
            }),
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
        let days = |at: i64| {
            let created_at = Timestamp(at);
            let holder = Holder { event: EventId::new(created_at, 1), fingerprint: [0; 32], delivery_count: 0, created_at };
            holder.days().collect::<Vec<_>>()
        };
        let midnight = 20_000 * DAY_MICROS;
        assert_eq!(days(midnight), [19_999, 20_000]);
        assert_eq!(days(midnight + OVERLAP_MICROS), [20_000]);
        assert_eq!(days(midnight - OVERLAP_MICROS), [19_999, 20_000]);
        assert_eq!(days(midnight - OVERLAP_MICROS - 1), [19_999]);
    }
}
