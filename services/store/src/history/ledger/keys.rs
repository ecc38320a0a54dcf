//! Idempotency keys: which rows claim a key, and what its holder means for an event.

use std::{collections::HashMap, time::Duration};

use outrider_model::{EventId, ProjectId, Timestamp, UsedKey};

use crate::{
    days::day_of,
    ledger::{Accepted, FoundEvent, LedgerError, NewEvent},
};

/// Within this time of midnight, a key is claimed for both days, so that two processes whose clocks
/// or statements are this far apart cannot both win.
const OVERLAP: Duration = Duration::from_secs(10);
/// Maximum time that an event may wait for its commit and still be claimed for the day of the
/// commit too. It waits longer only if the clock jumped. So a key has at most two rows.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// A key of a project.
pub(super) type Key<'a> = (ProjectId, &'a str);

/// An event that claims a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyClaim<'a> {
    pub key: Key<'a>,
    pub holder: KeyHolder,
    first_day: i32,
    last_day: i32,
}

/// The event that holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHolder {
    pub event: EventId,
    pub fingerprint: [u8; 32],
    pub delivery_count: u32,
    pub created_at: Timestamp,
}

impl<'a> KeyClaim<'a> {
    /// A claim that will be committed at `now` or later.
    fn new(key: Key<'a>, holder: KeyHolder, now: Timestamp) -> Self {
        let arrived = holder.created_at;
        let committed = now.clamp(arrived, arrived.plus(LONGEST_WAIT));
        Self {
            key,
            holder,
            first_day: day_of(arrived.minus(OVERLAP)),
            last_day: day_of(committed.plus(OVERLAP)),
        }
    }

    /// The days for which rows are written: that of the event, and the adjacent one if midnight is
    /// near or passed while the event waited.
    pub fn days(&self) -> impl Iterator<Item = i32> + use<> {
        self.first_day..=self.last_day
    }
}

/// The keys of a batch that will be committed at `now` or later, sorted. Each is claimed by the
/// first event that has it.
pub(super) fn claims(batch: &[NewEvent], now: Timestamp) -> Result<Vec<KeyClaim<'_>>, LedgerError> {
    let mut claims = Vec::new();
    for new in batch {
        let event = &new.event;
        let Some(key) = event.idempotency_key.as_deref() else { continue };
        let fingerprint = new.fingerprint.ok_or_else(|| {
            LedgerError::Data("an event with an idempotency key has no fingerprint".to_owned())
        })?;
        let holder = KeyHolder {
            event: event.id,
            fingerprint,
            delivery_count: event.delivery_count,
            created_at: event.created_at,
        };
        claims.push(KeyClaim::new((event.project, key), holder, now));
    }
    // The sort is stable: of equal keys, the first stays.
    claims.sort_by_key(|claim| claim.key);
    claims.dedup_by_key(|claim| claim.key);
    Ok(claims)
}

/// The days that may contain an earlier use of a key.
pub(super) fn lookup_days(claims: &[KeyClaim<'_>], keys_since: Timestamp) -> (i32, i32) {
    let first = claims.iter().map(|claim| claim.first_day).min().unwrap_or(0);
    let last = claims.iter().map(|claim| claim.last_day).max().unwrap_or(0);
    (day_of(keys_since).min(first - 1), last + 1)
}

/// The days that may contain a key that is still valid. The end is open, because the caller does
/// not say what day it is.
pub(super) fn days_since(keys_since: Timestamp) -> (i32, i32) {
    (day_of(keys_since), i32::MAX)
}

/// The event of a key, given the key's current holder.
pub(super) fn found(wanted: &UsedKey, holder: Option<KeyHolder>) -> Option<FoundEvent> {
    let KeyHolder { event, delivery_count, created_at, .. } =
        holder.filter(|holder| holder.fingerprint == wanted.fingerprint)?;
    Some(FoundEvent { event, delivery_count, created_at })
}

/// The outcome for each event, given the current holders of the keys.
pub(super) fn answers(
    batch: &[NewEvent],
    holders: &HashMap<Key<'_>, KeyHolder>,
) -> Result<Vec<Accepted>, LedgerError> {
    let answer = |new: &NewEvent| {
        let Some(key) = new.event.idempotency_key.as_deref() else { return Ok(Accepted::New) };
        match holders.get(&(new.event.project, key)) {
            // The key expired between two statements: a retry will win it.
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
            let holder = KeyHolder {
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
        // The event waited, or the clock went back or jumped meanwhile.
        assert_eq!(days(midnight - overlap - 1, 1), [19_999, 20_000]);
        assert_eq!(days(midnight - overlap - 1, -DAY), [19_999]);
        assert_eq!(days(midnight - hour, 10 * DAY), [19_999, 20_000]);
        assert_eq!(days(midnight - 2 * hour, 10 * DAY), [19_999]);
    }
}
