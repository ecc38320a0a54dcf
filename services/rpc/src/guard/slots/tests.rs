use outrider_model::{ApiKeyId, OrganizationId, ProjectId, Timestamp, principal::Actor};
use outrider_shares::Level;

use super::*;

fn is_displaced(slot: &ConnectionSlot) -> bool {
    slot.displaced.is_cancelled()
}

/// A key in its own project and organization.
fn key(number: u64) -> Holder {
    let at = Timestamp(0);
    Holder {
        organization: OrganizationId::new(at, number),
        project: Some(ProjectId::new(at, number)),
        actor: Actor::ApiKey(ApiKeyId::new(at, number)),
    }
}

/// A connection on which a request with this key was answered.
fn known(slots: &ConnectionSlots, key: Holder) -> Option<ConnectionSlot> {
    let slot = slots.take()?;
    slot.keep_for(key).ok()?;
    Some(slot)
}

#[test]
fn the_oldest_that_does_not_keep_its_slot_goes_first() {
    let slots = ConnectionSlots::new(3, 0);
    let all = [(); 3].map(|()| slots.take().unwrap());
    assert!(all.iter().all(|slot| !slot.displaced_another));
    all[0].keep();
    let fourth = slots.take().unwrap();
    assert!(fourth.displaced_another);
    assert_eq!(all.each_ref().map(is_displaced), [false, true, false]);
    // Too late: the connection is being closed, and no longer counts.
    all[1].keep();
    all[1].keep();
    all[2].keep();
    fourth.keep();
    assert!(slots.take().is_none(), "all keep their slots");
    drop(all);
    let left = locked(&slots.0.taken);
    assert_eq!((left.loose.len(), left.kept), (0, 1));
}

#[test]
fn a_part_is_reserved_for_those_that_keep_their_slots() {
    let slots = ConnectionSlots::new(4, 2);
    let kept = [(); 2].map(|()| slots.take().unwrap());
    kept.iter().for_each(ConnectionSlot::keep);
    let loose = [(); 2].map(|()| slots.take().unwrap());
    let fifth = slots.take().unwrap();
    assert!(is_displaced(&loose[0]) && !is_displaced(&loose[1]));
    drop(kept);
    let sixth = slots.take().unwrap();
    assert!(is_displaced(&loose[1]) && sixth.displaced_another, "two are free, but reserved");
    fifth.keep();
    assert!(!slots.take().unwrap().displaced_another, "one of the others is free again");
}

#[test]
fn a_loosened_slot_is_the_youngest() {
    let slots = ConnectionSlots::new(2, 0);
    let (first, second) = (slots.take().unwrap(), slots.take().unwrap());
    first.keep();
    first.loosen();
    let third = slots.take().unwrap();
    assert!(is_displaced(&second) && !is_displaced(&first) && !is_displaced(&third));
}

#[test]
fn a_key_keeps_its_share_and_what_it_has_beyond_makes_room() {
    // A lone key has a share of four slots, and eight connections may be beyond shares.
    let slots = ConnectionSlots::divided(16, 4);
    let greedy: Vec<ConnectionSlot> = (0..20).map(|_| known(&slots, key(1)).unwrap()).collect();
    let of = |slots: &ConnectionSlots| {
        let taken = locked(&slots.0.taken);
        (taken.kept, taken.beyond_count, taken.loose.len())
    };
    assert_eq!(
        of(&slots),
        (4, 8, 0),
        "the oldest connections beyond its share were displaced by its own"
    );
    assert!(
        greedy[..4].iter().all(|slot| !is_displaced(slot))
            && greedy[4..12].iter().all(is_displaced)
    );
    // Other keys find room, and do not displace each other.
    let others: Vec<ConnectionSlot> =
        (2..9).map(|number| known(&slots, key(number)).unwrap()).collect();
    assert_eq!(of(&slots), (11, 5, 0));
    assert!(others.iter().chain(&greedy[..4]).all(|slot| !is_displaced(slot)));
    // Connections without a key displace one beyond its share, and then each other.
    let anonymous: Vec<ConnectionSlot> = (0..50).map(|_| slots.take().unwrap()).collect();
    assert!(anonymous[..40].iter().all(is_displaced));
    assert!(others.iter().chain(&greedy[..4]).all(|slot| !is_displaced(slot)));
    drop((greedy, others, anonymous));
    assert_eq!(of(&slots), (0, 0, 0));
    assert_eq!(slots.0.shares.as_ref().unwrap().held(), 0);
    assert!(locked(&slots.0.taken).beyond.is_empty());
}

#[test]
fn nobody_is_displaced_while_its_request_is_in_flight() {
    let slots = ConnectionSlots::divided(16, 4);
    let busy: Vec<ConnectionSlot> = (0..12).map(|_| known(&slots, key(1)).unwrap()).collect();
    for slot in &busy {
        slot.in_flight().fetch_add(1, Ordering::SeqCst);
    }
    // There is no more room beyond its share, but there is room for others.
    let refused = slots.take().unwrap();
    assert_eq!(refused.keep_for(key(1)).unwrap_err().level, Level::Key);
    assert!(!refused.is_known());
    let mut others: Vec<ConnectionSlot> =
        (2..6).map(|number| known(&slots, key(number)).unwrap()).collect();
    assert!(busy.iter().all(|slot| !is_displaced(slot)));
    assert!(is_displaced(&refused), "it was displaced");
    // All connections are kept or busy, so the next one gets no slot.
    assert!(slots.take().is_none());
    // Now more connections are beyond their shares than may be: the last one may send no request.
    assert!(busy[11].keep_for(key(1)).is_err() && busy[0].keep_for(key(1)).is_ok());
    others.push(known(&slots, key(7)).unwrap());
    assert!(is_displaced(&busy[11]));
    busy[4].in_flight().fetch_sub(1, Ordering::SeqCst);
    others.push(known(&slots, key(8)).unwrap());
    assert_eq!(busy.iter().map(is_displaced).filter(|displaced| *displaced).count(), 2);
    assert!(is_displaced(&busy[4]));
}

#[test]
fn the_caller_with_the_most_beyond_its_share_makes_room() {
    // With two organizations, each key keeps its part of what the other leaves.
    let slots = ConnectionSlots::divided(32, 8);
    let many: Vec<ConnectionSlot> = (0..18).map(|_| known(&slots, key(1)).unwrap()).collect();
    let few: Vec<ConnectionSlot> = (0..8).map(|_| known(&slots, key(2)).unwrap()).collect();
    let beyond =
        |key: u64| locked(&slots.0.taken).beyond.get(&self::key(key)).map_or(0, BTreeMap::len);
    assert!(beyond(1) > beyond(2) && beyond(2) > 0, "{} {}", beyond(1), beyond(2));
    let before = beyond(2);
    while beyond(1) > before {
        known(&slots, key(3)).map(std::mem::forget).unwrap();
        assert_eq!(beyond(2), before);
    }
    // The share of a connection is given back with it.
    drop((many, few));
    assert_eq!(beyond(1) + beyond(2), 0);
}
