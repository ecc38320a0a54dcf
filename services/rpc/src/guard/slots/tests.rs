use outrider_model::{ApiKeyId, OrganizationId, ProjectId, Timestamp, principal::Actor};
use outrider_shares::Level;

use super::*;

fn is_displaced(seat: &Seat) -> bool {
    seat.displaced.is_cancelled()
}

/// A key of a project of its own, in an organization of its own.
fn key(number: u64) -> Holder {
    let at = Timestamp(0);
    Holder {
        organization: OrganizationId::new(at, number),
        project: Some(ProjectId::new(at, number)),
        actor: Actor::ApiKey(ApiKeyId::new(at, number)),
    }
}

/// A connection on which a request of this key was answered.
fn known(places: &Places, key: Holder) -> Option<Seat> {
    let seat = places.take()?;
    seat.keep_for(key).ok()?;
    Some(seat)
}

#[test]
fn the_oldest_that_does_not_keep_its_place_goes_first() {
    let places = Places::new(3, 0);
    let seats = [(); 3].map(|()| places.take().unwrap());
    assert!(seats.iter().all(|seat| !seat.took_anothers));
    seats[0].keep();
    let fourth = places.take().unwrap();
    assert!(fourth.took_anothers);
    assert_eq!(seats.each_ref().map(is_displaced), [false, true, false]);
    // Too late: it is on its way out, and counts no more.
    seats[1].keep();
    seats[1].keep();
    seats[2].keep();
    fourth.keep();
    assert!(places.take().is_none(), "all keep their places");
    drop(seats);
    let left = locked(&places.0.taken);
    assert_eq!((left.loose.len(), left.kept), (0, 1));
}

#[test]
fn a_part_is_reserved_for_those_that_keep_their_places() {
    let places = Places::new(4, 2);
    let kept = [(); 2].map(|()| places.take().unwrap());
    kept.iter().for_each(Seat::keep);
    let loose = [(); 2].map(|()| places.take().unwrap());
    let fifth = places.take().unwrap();
    assert!(is_displaced(&loose[0]) && !is_displaced(&loose[1]));
    drop(kept);
    let sixth = places.take().unwrap();
    assert!(is_displaced(&loose[1]) && sixth.took_anothers, "two are free, and reserved");
    fifth.keep();
    assert!(!places.take().unwrap().took_anothers, "one of the others is free again");
}

#[test]
fn a_place_that_is_loosened_is_the_youngest() {
    let places = Places::new(2, 0);
    let (first, second) = (places.take().unwrap(), places.take().unwrap());
    first.keep();
    first.loosen();
    let third = places.take().unwrap();
    assert!(is_displaced(&second) && !is_displaced(&first) && !is_displaced(&third));
}

#[test]
fn a_key_keeps_its_share_and_what_it_has_beyond_makes_room() {
    // A lone key has four of these, and eight may be beyond shares.
    let places = Places::divided(16, 4);
    let greedy: Vec<Seat> = (0..20).map(|_| known(&places, key(1)).unwrap()).collect();
    let of = |places: &Places| {
        let taken = locked(&places.0.taken);
        (taken.kept, taken.beyond, taken.loose.len())
    };
    assert_eq!(of(&places), (4, 8, 0), "the oldest beyond its share made room for its own");
    assert!(
        greedy[..4].iter().all(|seat| !is_displaced(seat))
            && greedy[4..12].iter().all(is_displaced)
    );
    // Others come, and are not in each other's way.
    let others: Vec<Seat> = (2..9).map(|number| known(&places, key(number)).unwrap()).collect();
    assert_eq!(of(&places), (11, 5, 0));
    assert!(others.iter().chain(&greedy[..4]).all(|seat| !is_displaced(seat)));
    // Whoever shows no key takes one place of those beyond shares, and then those of its like.
    let strangers: Vec<Seat> = (0..50).map(|_| places.take().unwrap()).collect();
    assert!(strangers[..40].iter().all(is_displaced));
    assert!(others.iter().chain(&greedy[..4]).all(|seat| !is_displaced(seat)));
    drop((greedy, others, strangers));
    assert_eq!(of(&places), (0, 0, 0));
    assert_eq!(places.0.shares.as_ref().unwrap().held(), 0);
    assert!(locked(&places.0.taken).over.is_empty());
}

#[test]
fn nobody_is_displaced_while_its_request_is_under_way() {
    let places = Places::divided(16, 4);
    let busy: Vec<Seat> = (0..12).map(|_| known(&places, key(1)).unwrap()).collect();
    for seat in &busy {
        seat.under_way().fetch_add(1, Ordering::SeqCst);
    }
    // There is no room beyond its share any more, but for others there is.
    let refused = places.take().unwrap();
    assert_eq!(refused.keep_for(key(1)).unwrap_err().level, Level::Key);
    assert!(!refused.is_known());
    let mut others: Vec<Seat> = (2..6).map(|number| known(&places, key(number)).unwrap()).collect();
    assert!(busy.iter().all(|seat| !is_displaced(seat)));
    assert!(is_displaced(&refused), "it made room");
    // All are kept or busy. The next that comes has no place.
    assert!(places.take().is_none());
    // Now fewer may be beyond their shares than are: no more requests of these are taken.
    assert!(busy[11].keep_for(key(1)).is_err() && busy[0].keep_for(key(1)).is_ok());
    others.push(known(&places, key(7)).unwrap());
    assert!(is_displaced(&busy[11]));
    busy[4].under_way().fetch_sub(1, Ordering::SeqCst);
    others.push(known(&places, key(8)).unwrap());
    assert_eq!(busy.iter().map(is_displaced).filter(|displaced| *displaced).count(), 2);
    assert!(is_displaced(&busy[4]));
}

#[test]
fn who_has_the_most_beyond_its_share_makes_room() {
    // Of two organizations each key keeps what the other leaves it.
    let places = Places::divided(32, 8);
    let many: Vec<Seat> = (0..18).map(|_| known(&places, key(1)).unwrap()).collect();
    let few: Vec<Seat> = (0..8).map(|_| known(&places, key(2)).unwrap()).collect();
    let beyond =
        |key: u64| locked(&places.0.taken).over.get(&self::key(key)).map_or(0, BTreeMap::len);
    assert!(beyond(1) > beyond(2) && beyond(2) > 0, "{} {}", beyond(1), beyond(2));
    let before = beyond(2);
    while beyond(1) > before {
        known(&places, key(3)).map(std::mem::forget).unwrap();
        assert_eq!(beyond(2), before);
    }
    // The share of a connection goes back with it.
    drop((many, few));
    assert_eq!(beyond(1) + beyond(2), 0);
}
