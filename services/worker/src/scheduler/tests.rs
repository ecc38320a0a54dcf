use outrider_model::{Heard, OrganizationId, ProjectId, Timestamp, WindowRules};

use super::*;

fn who(organization: u64, project: u64, endpoint: u64) -> Recipient {
    Recipient {
        organization: OrganizationId::new(Timestamp(0), organization),
        project: ProjectId::new(Timestamp(0), project),
        endpoint: EndpointId::new(Timestamp(0), endpoint),
    }
}

fn windows(initial: u32) -> Option<Windows> {
    let memory = std::time::Duration::from_secs(60);
    Some(Windows::new(WindowRules { initial, least: 1, capacity: 100, memory }))
}

fn news(heard: Heard) -> News {
    News { heard, most: 64, at: Timestamp(1) }
}

/// Asks for one job after another until one waits, and returns the grants.
fn fill(scheduler: &Arc<Scheduler<u32>>, who: Recipient) -> Vec<Grant<u32>> {
    let mut grants = Vec::new();
    while let Asked::Granted(_, grant) = scheduler.ask(who, Amount::always(1), 0) {
        grants.push(grant);
    }
    grants
}

#[test]
fn a_new_endpoint_has_a_small_window_that_grows_with_its_answers_and_shrinks_on_timeouts() {
    let scheduler = Scheduler::new(8_192, windows(8));
    let endpoint = who(1, 1, 1);
    let mut grants = fill(&scheduler, endpoint);
    assert_eq!((grants.len(), scheduler.waiting()), (8, 1));
    for _ in 1..132 {
        scheduler.line().push(endpoint, Amount::always(1), 0);
    }
    for expected in [16, 32, 64, 20] {
        grants.iter_mut().for_each(|grant| grant.heard(news(Heard::Answered)));
        grants.clear();
        grants = scheduler.next(1_000).into_iter().map(|(_, grant)| grant).collect();
        assert_eq!(grants.len(), expected);
    }
    grants.iter_mut().for_each(|grant| grant.heard(news(Heard::Nothing)));
    drop(grants);
    assert_eq!((scheduler.used(), scheduler.windows()), (0, (1, 1)));
}

#[test]
fn what_is_freed_goes_to_the_organization_that_holds_least() {
    let scheduler = Scheduler::new(64, windows(64));
    let mut greedy = fill(&scheduler, who(1, 1, 1));
    greedy.extend(fill(&scheduler, who(1, 1, 2)));
    greedy.extend(fill(&scheduler, who(1, 2, 3)));
    let modest = fill(&scheduler, who(2, 3, 4));
    let held = [greedy.len(), modest.len()];
    assert!(held[0] > held[1] && held[1] > 0, "{held:?}");
    assert_eq!(scheduler.waiting(), 4);
    assert!(scheduler.next(10).is_empty(), "each has its share");
    // A grant of the modest recipient is given back, and goes to that recipient's next job.
    drop(modest);
    let turns = scheduler.next(1);
    assert_eq!(turns[0].1.who, who(2, 3, 4));
}

#[test]
fn jobs_of_an_endpoint_keep_their_order_and_are_handed_out_at_the_close() {
    let scheduler = Scheduler::new(64, windows(1));
    let Asked::Granted(_, grant) = scheduler.ask(who(1, 1, 1), Amount::always(1), 0) else {
        panic!("granted")
    };
    for number in 1..5 {
        assert!(matches!(scheduler.ask(who(1, 1, 1), Amount::always(1), number), Asked::Waits));
    }
    assert!(scheduler.next(10).is_empty());
    drop(grant);
    let mut turns = scheduler.next(10);
    assert_eq!(turns.len(), 1);
    let (number, _grant) = turns.remove(0);
    assert_eq!(number, 1);
    assert_eq!(scheduler.close(), [2, 3, 4]);
    assert!(matches!(scheduler.ask(who(1, 1, 2), Amount::always(1), 9), Asked::Closed(9)));
}

#[test]
fn jobs_that_line_up_go_in_batches_by_what_their_organizations_hold() {
    let scheduler = Scheduler::new(1_000, None);
    for number in 0..4 {
        assert_eq!(scheduler.line_up(who(1, 1, 1), 60, number), Ok(()));
    }
    assert_eq!(
        (scheduler.used(), scheduler.batch(100).len()),
        (0, 1),
        "a second one would exceed the batch"
    );
    // The first grant was given back. Now one recipient holds a grant.
    let first = scheduler.batch(100);
    for number in [10, 11] {
        assert_eq!(scheduler.line_up(who(2, 2, 2), 40, number), Ok(()));
    }
    let second: Vec<u32> = scheduler.batch(100).into_iter().map(|(number, _)| number).collect();
    assert_eq!((first[0].0, second), (1, vec![10, 11]));
    assert_eq!(scheduler.line_up(who(3, 3, 3), 125, 20), Ok(()));
    assert_eq!(scheduler.batch(100).len(), 1, "one that is larger than a batch goes alone");
    assert_eq!(scheduler.close(), [2, 3]);
    assert_eq!(scheduler.line_up(who(1, 1, 1), 1, 30), Err(30));
}

#[test]
fn an_endpoint_that_does_not_answer_takes_more_for_what_is_large() {
    let scheduler = Scheduler::new(8_192, windows(8));
    let endpoint = who(1, 1, 1);
    let mut grants = Vec::new();
    for number in 0..20 {
        if let Asked::Granted(_, grant) = scheduler.ask(endpoint, Amount::one_or(4), number) {
            grants.push(grant);
        }
    }
    assert_eq!((grants.len(), scheduler.used()), (2, 8));
    // The endpoint answers, so waiting jobs take 1 from now on.
    grants.remove(0).heard(news(Heard::Answered));
    grants.extend(scheduler.next(100).into_iter().map(|(_, grant)| grant));
    assert_eq!(
        (grants.len(), scheduler.used()),
        (6, 9),
        "a window of 9, of which 4 are held since before"
    );
    // Now the endpoint does not answer.
    grants.remove(0).heard(news(Heard::Nothing));
    assert_eq!((scheduler.used(), scheduler.next(100).len()), (5, 0), "a window of 4");
    grants.drain(..3);
    let turns = scheduler.next(100);
    assert_eq!((turns.len(), scheduler.used()), (1, 6));
}

#[test]
fn a_large_demand_does_not_hold_up_small_ones() {
    let scheduler = Scheduler::new(64, None);
    let mut grants = Vec::new();
    for (organization, amount) in [(1, 8), (2, 8), (3, 8), (4, 8), (5, 8), (6, 8), (7, 8), (8, 4)] {
        let Asked::Granted(_, grant) =
            scheduler.ask(who(organization, 1, 1), Amount::always(amount), 0)
        else {
            panic!("granted")
        };
        grants.push(grant);
    }
    assert!(matches!(scheduler.ask(who(9, 1, 9), Amount::always(8), 99), Asked::Waits));
    let Asked::Granted(_, small) = scheduler.ask(who(10, 1, 10), Amount::always(1), 10) else {
        panic!("granted")
    };
    drop(small);
    assert!(scheduler.next(10).is_empty());
    grants.pop();
    assert_eq!(scheduler.next(10).first().map(|(number, _)| *number), Some(99));
}
