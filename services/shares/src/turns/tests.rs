use std::{future::Future, pin::pin, task::Poll};

use futures::{FutureExt, poll};

use super::*;
use crate::testing::holder;

const RESOURCES: TurnResources = TurnResources {
    slots: Resource { name: "tested-slots", noun: "tested slots", least: 1 },
    line: Resource { name: "tested-line", noun: "places in the tested line", least: 1 },
};

/// A request for a turn: in the line, or done.
type Asking = std::pin::Pin<Box<dyn Future<Output = Result<Turn, Exhausted>> + Send>>;

fn ask(turns: &Turns, holder: Holder) -> Asking {
    let turns = turns.clone();
    let mut asking: Asking = Box::pin(async move { turns.take(holder).await });
    match asking.as_mut().now_or_never() {
        Some(answer) => Box::pin(std::future::ready(answer)),
        None => asking,
    }
}

fn has_turn(asking: &mut Asking) -> Option<Turn> {
    asking.as_mut().now_or_never().map(|turn| turn.expect("it is not refused"))
}

/// Takes slots until none is given at once.
fn fill(turns: &Turns, holder: Holder) -> Vec<Turn> {
    std::iter::from_fn(|| turns.at_once(holder)).collect()
}

#[test]
fn slots_are_divided_as_shares_are() {
    let turns = Turns::new(RESOURCES, 8, 100);
    let lone = fill(&turns, holder(1, 1, 1));
    assert_eq!(lone.len(), 2, "a key that is alone has a quarter");
    let others: Vec<_> = (2..20).flat_map(|key| fill(&turns, holder(1, 1, key))).collect();
    assert_eq!(turns.held(), (4, 0), "a project that is alone has half");
    assert_eq!(fill(&turns, holder(2, 2, 1)).len(), 1, "another key finds room");
    drop((lone, others));
    assert_eq!(turns.held(), (0, 0));
    assert_eq!(
        fill(&Turns::new(RESOURCES, 0, 1), holder(1, 1, 1)).len(),
        1,
        "there is at least one slot"
    );
}

#[test]
fn a_free_slot_goes_to_the_caller_that_holds_least_and_then_waits_longest() {
    let turns = Turns::new(RESOURCES, 1, 100);
    let mut turn = fill(&turns, holder(1, 1, 1)).remove(0);
    // Many callers of one organization come first: two keys of one project, and a key of another.
    let mut flood: Vec<_> = [(1, 1), (1, 1), (1, 2), (2, 3), (2, 3)]
        .map(|(project, key)| ask(&turns, holder(1, project, key)))
        .into();
    let mut others = vec![
        ask(&turns, holder(2, 1, 1)),
        ask(&turns, holder(3, 1, 1)),
        ask(&turns, holder(2, 1, 1)),
    ];
    assert_eq!(turns.held(), (1, 8));
    let mut order = Vec::new();
    for _ in 0..8 {
        drop(turn);
        let found = flood
            .iter_mut()
            .chain(&mut others)
            .enumerate()
            .find_map(|(index, asking)| Some((index, has_turn(asking)?)));
        let (index, next) = found.expect("the slot is passed on at once");
        // A future that has resolved must not be polled again.
        *flood.iter_mut().chain(&mut others).nth(index).unwrap() = Box::pin(std::future::pending());
        order.push(index);
        turn = next;
    }
    // Organizations 1, 2, 3, 1, 2 and then the rest of 1; within it by projects, and within those
    // by keys.
    assert_eq!(order, [0, 5, 6, 3, 7, 2, 4, 1]);
    drop(turn);
    assert_eq!(turns.held(), (0, 0));
    assert_eq!(turns.0.state().line.entries(), (0, 0), "nobody is left in the line");
}

#[test]
fn a_returning_caller_goes_behind_those_that_wait() {
    let turns = Turns::new(RESOURCES, 1, 100);
    let turn = fill(&turns, holder(1, 1, 1)).remove(0);
    let mut again = ask(&turns, holder(1, 1, 1));
    let mut other = ask(&turns, holder(2, 1, 1));
    drop(turn);
    let turn = has_turn(&mut again).expect("it came first");
    let mut again = ask(&turns, holder(1, 1, 1));
    drop(turn);
    assert!(has_turn(&mut again).is_none());
    drop(has_turn(&mut other).expect("the other has its turn"));
    assert!(has_turn(&mut again).is_some());
}

#[test]
fn callers_that_hold_slots_let_those_go_first_that_hold_none() {
    let turns = Turns::new(RESOURCES, 8, 100);
    let flood: Vec<_> = (0..8).flat_map(|key| fill(&turns, holder(1, 1, key))).collect();
    let more: Vec<_> = (0..8).flat_map(|key| fill(&turns, holder(2, 1, key))).collect();
    let mut last: Vec<_> =
        (3..12).flat_map(|organization| fill(&turns, holder(organization, 1, 1))).collect();
    assert_eq!((flood.len(), more.len(), turns.held()), (4, 2, (8, 0)));
    let mut waiting = ask(&turns, holder(2, 1, 1));
    let mut newcomer = ask(&turns, holder(20, 1, 1));
    last.truncate(1);
    drop(has_turn(&mut newcomer).expect("it holds nothing"));
    assert!(
        has_turn(&mut waiting).is_none(),
        "the rest is smaller than what its organization holds"
    );
    drop((flood, more));
    assert!(has_turn(&mut waiting).is_some());
}

#[test]
fn the_line_is_bounded_and_divided() {
    let turns = Turns::new(RESOURCES, 1, 8);
    let turn = fill(&turns, holder(1, 1, 1));
    let refusal = |holder| {
        ask(&turns, holder).now_or_never().expect("it is refused at once").unwrap_err().level
    };
    let line: Vec<_> = (0..2).map(|_| ask(&turns, holder(1, 1, 1))).collect();
    assert_eq!((turns.held(), refusal(holder(1, 1, 1))), ((1, 2), Level::Key));
    let other = ask(&turns, holder(2, 2, 2));
    assert_eq!(turns.held(), (1, 3), "another finds room");
    let all: Vec<_> = (3..8).map(|organization| ask(&turns, holder(organization, 1, 1))).collect();
    assert_eq!((turns.held(), refusal(holder(9, 1, 1))), ((1, 8), Level::Server));
    drop((line, all));
    assert_eq!(turns.held(), (1, 1), "a caller that gives up leaves the line");
    drop((turn, other));
    assert_eq!(turns.held(), (0, 0));
}

#[test]
fn callers_that_are_bounded_elsewhere_are_never_refused() {
    let turns = Turns::new(RESOURCES, 1, 1);
    let turn = fill(&turns, holder(1, 1, 1)).remove(0);
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(turns.wait(holder(1, 1, 1)))).collect();
    assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    assert_eq!(turns.held(), (1, 5));
    drop(turn);
    for one in waiting {
        drop(one.now_or_never().expect("each has its turn"));
    }
    assert_eq!(turns.held(), (0, 0));
}

#[tokio::test]
async fn turns_that_nobody_takes_are_passed_on() {
    let turns = Turns::new(RESOURCES, 1, 100);
    let turn = fill(&turns, holder(1, 1, 1));
    let (gone, late) = (ask(&turns, holder(2, 1, 1)), ask(&turns, holder(3, 1, 1)));
    let mut next = pin!(turns.take(holder(4, 1, 1)));
    assert!(poll!(&mut next).is_pending());
    // The slot is on its way to the first waiter, which is dropped before it gets it. So is the
    // second.
    drop(turn);
    assert_eq!(turns.held(), (1, 3));
    drop(gone);
    drop(late);
    let Poll::Ready(turn) = poll!(&mut next) else { panic!("the third has the slot") };
    drop(turn);
    assert_eq!(turns.held(), (0, 0));
    assert_eq!(turns.0.state().line.entries(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_refusal_after_patience_names_the_level() {
    let turns = Turns::new(RESOURCES, 8, 100);
    let patience = Duration::from_secs(3);
    let lone = fill(&turns, holder(1, 1, 1));
    assert_eq!(turns.take_within(holder(1, 1, 1), patience).await.unwrap_err().level, Level::Key);
    let all: Vec<_> = (0..40).flat_map(|n| fill(&turns, holder(n, n, n))).collect();
    assert_eq!(turns.held(), (8, 0));
    assert_eq!(
        turns.take_within(holder(50, 50, 50), patience).await.unwrap_err().level,
        Level::Server
    );
    drop((lone, all));
    assert!(turns.take_within(holder(1, 1, 1), patience).await.is_ok());
    assert_eq!((turns.held(), turns.0.state().line.entries()), ((0, 0), (0, 0)));
}

/// After any history, no more callers have a turn than there are slots, no caller that may have a
/// slot waits, and no entry is left behind.
#[test]
fn turns_hold_over_any_history() {
    let turns = Turns::new(RESOURCES, 5, 60);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut waiting, mut held): (Vec<(Holder, Asking)>, Vec<Turn>) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let project = next(6);
        match next(4) {
            0 | 1 => {
                let holder = holder(project / 2, project, next(4));
                let mut asking = ask(&turns, holder);
                match asking.as_mut().now_or_never() {
                    Some(Ok(turn)) => held.push(turn),
                    Some(Err(_)) => {}
                    None => waiting.push((holder, asking)),
                }
            }
            2 if !waiting.is_empty() => {
                drop(waiting.swap_remove(next(waiting.len() as u64) as usize))
            }
            3 if !held.is_empty() => drop(held.swap_remove(next(held.len() as u64) as usize)),
            _ => {}
        }
        waiting.retain_mut(|(_, asking)| match has_turn(asking) {
            Some(turn) => {
                held.push(turn);
                false
            }
            None => true,
        });
        assert_eq!(turns.held(), (held.len(), waiting.len()));
        let state = turns.0.state();
        assert!(held.len() <= 5 && state.counts.held() == held.len());
        assert!(
            waiting.iter().all(|(holder, _)| state.counts.check(holder, 1).is_err()),
            "nobody is passed over"
        );
    }
    drop((waiting, held));
    assert_eq!((turns.held(), turns.0.state().line.entries()), ((0, 0), (0, 0)));
}
