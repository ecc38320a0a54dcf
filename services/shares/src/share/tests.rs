use std::collections::HashMap;

use outrider_model::{Error, Reason};

use super::*;
use crate::{count::Level, testing::holder};

const RESOURCE: Resource = Resource { name: "tested", noun: "tested things", least: 1 };

/// Takes one at a time until refused.
fn take_all(shares: &Shares, holder: Holder) -> (Share, Level) {
    let mut share = shares.share(holder);
    loop {
        if let Err(exhausted) = share.grow(1) {
            return (share, exhausted.level);
        }
    }
}

#[test]
fn a_key_gets_half_of_its_projects_half_and_the_next_gets_half_of_the_rest() {
    let shares = Shares::new(RESOURCE, 64);
    let amounts = |holders: &[Holder]| {
        let taken: Vec<_> = holders.iter().map(|holder| take_all(&shares, *holder)).collect();
        taken.iter().map(|(share, level)| (share.amount(), *level)).collect::<Vec<_>>()
    };
    assert_eq!(shares.most(), 16);
    assert_eq!(amounts(&[holder(1, 1, 1)]), [(16, Level::Key)]);
    assert_eq!(shares.held(), 0, "all is given back");
    let keys = amounts(&[holder(1, 1, 1), holder(1, 1, 2), holder(1, 1, 3), holder(1, 1, 4)]);
    assert_eq!(keys, [(16, Level::Key), (8, Level::Key), (4, Level::Key), (2, Level::Key)]);
    // Another project of the same organization, and then another organization.
    let projects = amounts(&[holder(1, 1, 1), holder(1, 2, 2), holder(2, 3, 3)]);
    assert_eq!(projects, [(16, Level::Key), (10, Level::Key), (9, Level::Key)]);
}

#[test]
fn a_project_with_many_keys_has_no_more_than_half_of_what_is_left() {
    let shares = Shares::new(RESOURCE, 100);
    let flood: Vec<_> = (0..100).map(|key| take_all(&shares, holder(1, 1, key)).0).collect();
    assert_eq!(shares.held(), 50);
    assert_eq!(flood[99].amount(), 0);
    assert_eq!(shares.take(holder(1, 1, 7), 1).unwrap_err().level, Level::Project);
    let (other, _) = take_all(&shares, holder(2, 2, 200));
    assert_eq!(other.amount(), 12, "a quarter of the half that is left");
}

#[test]
fn an_organization_with_many_projects_has_no_more_than_three_quarters() {
    let shares = Shares::new(RESOURCE, 1_000);
    let mut flood = Vec::new();
    for project in 0..100 {
        flood.extend((0..20).map(|key| take_all(&shares, holder(1, project, key)).0));
    }
    assert_eq!(shares.held(), 750);
    assert_eq!(shares.take(holder(1, 500, 1), 1).unwrap_err().level, Level::Organization);
    let (other, _) = take_all(&shares, holder(2, 600, 1));
    assert_eq!(other.amount(), 62, "a quarter of what is left");
}

#[test]
fn everybody_gets_one_while_there_is_one() {
    for total in 0..6 {
        let shares = Shares::new(RESOURCE, total);
        let taken: Vec<_> = (0..10).map(|n| take_all(&shares, holder(n, n, n))).collect();
        assert_eq!(shares.held(), total, "of {total}");
        let of_all = taken
            .iter()
            .filter(|(share, level)| share.amount() == 0 && *level == Level::Server)
            .count();
        assert_eq!(of_all, 10 - total);
    }
    let shares = Shares::new(Resource { least: 10, ..RESOURCE }, 100);
    let taken: Vec<_> = (0..20).map(|n| take_all(&shares, holder(n, n, n)).0).collect();
    assert_eq!(shares.held(), 100);
    assert!(taken.iter().filter(|share| share.amount() >= 10).count() >= 7);
}

#[test]
fn a_refusal_takes_nothing_and_an_excess_is_counted() {
    let shares = Shares::new(RESOURCE, 100);
    let mut share = shares.take(holder(1, 1, 1), 20).unwrap();
    assert_eq!(share.grow(6).unwrap_err().level, Level::Key);
    assert_eq!(share.grow(40).unwrap_err().level, Level::Project);
    assert_eq!(share.grow(usize::MAX).unwrap_err().level, Level::Server);
    assert_eq!((share.amount(), shares.held()), (20, 20));
    share.exceed(200);
    assert_eq!((share.amount(), shares.held()), (220, 220));
    assert_eq!(shares.take(holder(2, 2, 2), 1).unwrap_err().level, Level::Server);
    share.shrink(210);
    assert!(share.grow(5).is_ok());
    share.merge(shares.take(holder(1, 1, 1), 1).unwrap());
    assert_eq!((share.amount(), shares.held()), (16, 16));
    share.shrink(1_000);
    assert_eq!((share.amount(), shares.held()), (0, 0));
}

#[test]
fn errors_say_whose_share_it_is() {
    let shares = Shares::new(RESOURCE, 4);
    let (_share, level) = take_all(&shares, holder(1, 1, 1));
    let error = Error::from(shares.take(holder(1, 1, 1), 1).unwrap_err());
    assert_eq!((level, error.reason), (Level::Key, Reason::ShareExhausted));
    assert_eq!(error.message, "the API key has used up its share of this server's tested things");
    assert!(error.retry_after.is_some() && error.is_overload());
    let full = Error::from(shares.take(holder(2, 2, 2), 100).unwrap_err());
    assert_eq!(full.reason, Reason::Overloaded);
}

/// After any history, the sums are right, no caller has exceeded the rule at the moment of taking,
/// and no entry is left behind.
#[test]
fn counts_hold_over_any_history() {
    let mut counts = Counts::new(1_000, 3);
    let mut held: HashMap<Holder, usize> = HashMap::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..20_000 {
        let project = next(6);
        let holder = holder(project / 2, project, next(4));
        let amount = usize::try_from(next(80)).unwrap();
        let mine = held.entry(holder).or_default();
        if next(2) == 0 {
            let less = amount.min(*mine);
            counts.remove(&holder, less);
            *mine -= less;
        } else if counts.check(&holder, amount).is_ok() {
            counts.add(&holder, amount);
            *mine += amount;
            let sum = |of: &dyn Fn(&Holder) -> bool| {
                held.iter().filter(|(other, _)| of(other)).map(|(_, n)| n).sum::<usize>()
            };
            let mine = sum(&|other| other.project == holder.project);
            let others = sum(&|other| other.project != holder.project);
            assert!(amount == 0 || mine <= ((1_000 - others) / 2).max(3), "{mine} with {others}");
        }
        assert_eq!(counts.held(), held.values().sum::<usize>());
    }
    for (holder, amount) in held {
        counts.remove(&holder, amount);
    }
    assert_eq!((counts.held(), counts.entries()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_continues_when_enough_is_given_back() {
    let shares = Shares::new(RESOURCE, 100);
    let mut share = shares.take(holder(1, 1, 1), 25).unwrap();
    let waiting = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.wait(holder(1, 1, 1), 10).await.amount() })
    };
    let room = {
        let shares = shares.clone();
        tokio::spawn(async move { shares.room(holder(1, 1, 1)).await })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished() && !room.is_finished() && !shares.has_room(&holder(1, 1, 1)));
    share.shrink(5);
    room.await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "five are not ten");
    drop(share);
    assert_eq!(waiting.await.unwrap(), 10);
    assert_eq!((shares.held(), shares.0.counts().waiting), (0, 0));
    assert_eq!(shares.wait(holder(1, 1, 1), 1_000).await.amount(), 25, "no more than there can be");
}
