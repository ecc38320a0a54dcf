//! What every backend must do. Each case makes its own queue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use outrider_model::{OrganizationId, shares};
use outrider_queue::{Enqueued, LeasedJob, NewJob};
use tokio::time::{Instant, timeout};

use super::{
    BOUND,
    backend::Backend,
    eventually,
    jobs::{all_done, carry, depth, done, number, project},
};

/// A lease that no test reaches the end of.
pub const LONG: Duration = Duration::from_secs(600);
/// A lease that a test waits for. It is long enough that a busy machine does not lose it between
/// two calls.
pub const SHORT: Duration = Duration::from_millis(1_500);

/// A window that no test fills.
pub const ROOMY: u32 = 100_000;

pub async fn queue_read_finish(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let endpoint = fixture.endpoint(0);
    let jobs = fixture.jobs(endpoint, 0..10);
    fixture.put(&jobs).await;
    assert_eq!(depth(&*fixture.queue).await, 10);
    let taken = fixture.take("one", 10).await;
    for (new, leased) in jobs.iter().zip(&taken) {
        assert_eq!(new.job, leased.job, "to the byte");
        assert!(leased.first);
        assert_eq!(leased.receipt.shard, fixture.queue.shard(endpoint));
        assert_eq!(leased.receipt.epoch, fixture.epoch(endpoint));
    }
    fixture.nothing("two").await;
    fixture.queue.finish(&all_done(&taken)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
    assert!(fixture.queue.reclaim("two", 10).await.expect("reclaim").is_empty());
}

pub async fn max_is_kept(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..10)).await;
    assert!(fixture.queue.read("one", 0, Duration::ZERO).await.expect("read").is_empty());
    let mut seen = 0;
    eventually("all jobs, three at most at a time", async || {
        let jobs = fixture.queue.read("one", 3, Duration::from_millis(200)).await.expect("read");
        assert!(jobs.len() <= 3, "{}", jobs.len());
        seen += jobs.len();
        (seen == 10).then_some(())
    })
    .await;
}

pub async fn endpoint_limit(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let (full, other) = (fixture.endpoint(0), fixture.endpoint(1));
    let jobs: Vec<_> = (0..4)
        .map(|number| fixture.job_of(number, full, 1, 3))
        .chain([fixture.job(9, other)])
        .collect();
    let results = fixture.queue.enqueue(&jobs).await.expect("enqueued");
    use Enqueued::{Full, Queued};
    assert_eq!(
        results,
        [Queued, Queued, Queued, Full, Queued],
        "one endpoint's limit is not another's"
    );
    let [full_one, other] = [&jobs[0], &jobs[4]].map(|job| job.job.recipient);
    let asked = [(full_one, 3), (full_one, 5), (full_one, 1), (other, 1_000)];
    assert_eq!(fixture.queue.room(&asked).await.expect("room"), [0, 2, 0, 999]);

    let taken = fixture.take("one", 4).await;
    assert_eq!(
        fixture.queue.enqueue(&jobs[3..4]).await.expect("enqueued"),
        [Full],
        "what is held counts"
    );
    fixture.queue.finish(&[done(&taken[0])]).await.expect("finished");
    assert_eq!(fixture.queue.room(&[(full_one, 3)]).await.expect("room"), [1]);
    assert_eq!(fixture.queue.enqueue(&jobs[3..4]).await.expect("enqueued"), [Queued]);
}

/// Fills a small window with as many jobs of each endpoint as it takes.
pub async fn shares_of_the_window(backend: &impl Backend) {
    let Some(fixture) = backend.make(64, LONG).await else { return };
    let mut taken = Vec::new();
    for (index, (organization, of_project)) in
        [(1, 1), (1, 1), (1, 2), (2, 3), (3, 4)].into_iter().enumerate()
    {
        let endpoint = fixture.endpoint(index);
        let of = |number: u64| {
            of(fixture.job(index as u64 * 100 + number, endpoint), organization, of_project)
        };
        let jobs: Vec<_> = (0..50).map(of).collect();
        let room = fixture.queue.room(&[(jobs[0].job.recipient, 1_000)]).await.expect("room")[0];
        let results = fixture.queue.enqueue(&jobs).await.expect("enqueued");
        let queued = results.iter().take_while(|result| **result == Enqueued::Queued).count();
        assert!(results[queued..].iter().all(|result| *result == Enqueued::Full), "{results:?}");
        assert_eq!(queued, room as usize, "as many as there is room for");
        taken.push(queued);
    }
    // A single one has an eighth. A second has half of the rest, at each level.
    assert_eq!(taken, [8, 4, 5, 5, 5]);
    let leased = fixture.take("one", 27).await;
    fixture.queue.finish(&all_done(&leased)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
    let who = of(fixture.job(1, fixture.endpoint(0)), 1, 1).job.recipient;
    assert_eq!(
        fixture.queue.room(&[(who, 1_000)]).await.expect("room"),
        [8],
        "nothing is left behind"
    );
}

/// A large job takes more of the window.
pub async fn units_of_the_window(backend: &impl Backend) {
    let Some(fixture) = backend.make(800, LONG).await else { return };
    let large = |number: u64| {
        let mut job = fixture.job(number, fixture.endpoint(0));
        carry(&mut job, vec![b'x'; 40_000].into());
        job
    };
    let jobs: Vec<_> = (0..20).map(large).collect();
    let results = fixture.queue.enqueue(&jobs).await.expect("enqueued");
    assert_eq!(
        results.iter().filter(|result| **result == Enqueued::Queued).count(),
        10,
        "ten units each of a hundred"
    );
    let leased = fixture.take("one", 10).await;
    fixture.queue.finish(&all_done(&leased)).await.expect("finished");
    assert_eq!(fixture.queue.room(&[(jobs[0].job.recipient, 1_000)]).await.expect("room"), [100]);
    // A window that is too small for any job gets the smallest useful size.
    let Some(fixture) = backend.make(1, LONG).await else { return };
    assert_eq!(
        fixture.queue.enqueue(&fixture.jobs(fixture.endpoint(0), 0..2)).await.expect("enqueued"),
        [Enqueued::Queued, Enqueued::Full]
    );
    assert_eq!(shares::SMALLEST_TOTAL, 8);
}

/// Moves the job to this project of this organization.
fn of(job: NewJob, organization: u64, of_project: u64) -> NewJob {
    let mut job = job;
    let recipient = &mut Arc::make_mut(&mut job.job).recipient;
    recipient.organization = OrganizationId::new(super::jobs::AT, organization);
    recipient.project = project(of_project);
    job
}

pub async fn present(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let endpoint = fixture.endpoint(0);
    let job = fixture.job(1, endpoint);
    let twice = [job.clone(), fixture.job_of(1, endpoint, 2, 1_000)];
    use Enqueued::{Present, Queued};
    assert_eq!(
        fixture.queue.enqueue(&twice).await.expect("enqueued"),
        [Queued, Present],
        "within one call"
    );
    assert_eq!(
        fixture.queue.enqueue(&twice).await.expect("enqueued"),
        [Present, Present],
        "while it waits"
    );
    let taken = fixture.take("one", 1).await;
    assert_eq!(
        fixture.queue.enqueue(&twice).await.expect("enqueued"),
        [Present, Present],
        "while it is held"
    );
    assert_eq!(fixture.queue.held(&[(endpoint, job.job.delivery)]).await.expect("held"), [Some(1)]);
    fixture.queue.finish(&all_done(&taken)).await.expect("finished");
    assert_eq!(fixture.queue.enqueue(&twice[1..]).await.expect("enqueued"), [Queued]);
    assert_eq!(fixture.queue.held(&[(endpoint, job.job.delivery)]).await.expect("held"), [Some(2)]);
    assert_eq!(
        fixture.queue.room(&[(fixture.job(0, endpoint).job.recipient, 10)]).await.expect("room"),
        [9]
    );
}

pub async fn wrong_epoch(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    assert!(fixture.epochs.iter().all(|epoch| *epoch > 0));
    assert_eq!(
        fixture.queue.epochs().await.expect("epochs"),
        fixture.epochs,
        "asking changes nothing"
    );
    let endpoint = fixture.endpoint(0);
    let mut wrong = fixture.job(1, endpoint);
    Arc::make_mut(&mut wrong.job).epoch += 1;
    let results =
        fixture.queue.enqueue(&[wrong.clone(), fixture.job(2, endpoint)]).await.expect("enqueued");
    assert_eq!(results, [Enqueued::WrongEpoch, Enqueued::Queued]);
    assert_eq!(fixture.queue.held(&[(endpoint, wrong.job.delivery)]).await.expect("held"), [None]);

    // A receipt of another epoch frees nothing.
    let taken = fixture.take("one", 1).await;
    let mut stale = done(&taken[0]);
    stale.receipt.epoch += 1;
    fixture.queue.finish(&[stale]).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 1);
    fixture.queue.finish(&all_done(&taken)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
}

pub async fn a_dead_consumers_job_reaches_another(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, SHORT).await else { return };
    let begin = Instant::now();
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..3)).await;
    let lost = fixture.take("dead", 3).await;
    let mut found: Vec<LeasedJob> = Vec::new();
    eventually("all jobs of the dead consumer", async || {
        for leased in fixture.queue.reclaim("alive", 2).await.expect("reclaim") {
            // On a busy machine, the lease of the first jobs may run out again before the last one
            // is found.
            if found.iter().all(|known| known.receipt != leased.receipt) {
                found.push(leased);
            }
        }
        (found.len() == 3).then_some(())
    })
    .await;
    assert!(begin.elapsed() >= SHORT, "not before the lease ran out");
    assert!(found.iter().all(|leased| !leased.first), "it may have been sent");
    let numbers: Vec<_> = found.iter().map(number).collect();
    assert_eq!(numbers, [0, 1, 2], "in their order");
    assert_eq!(found[0].receipt, lost[0].receipt);
    fixture.nothing("alive").await;
    fixture.queue.finish(&all_done(&found)).await.expect("finished");
    // The consumer that seemed dead was only slow.
    let gone = fixture.queue.renew("dead", &[lost[0].receipt.clone()]).await.expect("renewed");
    assert_eq!(gone, [lost[0].receipt.clone()], "it is another's now");
    fixture.queue.finish(&all_done(&lost)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
    assert_eq!(
        fixture
            .queue
            .room(&[(fixture.job(0, fixture.endpoint(0)).job.recipient, 5)])
            .await
            .expect("room"),
        [5]
    );
}

pub async fn renewing_keeps_a_job(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, SHORT).await else { return };
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..2)).await;
    let held = fixture.take("one", 2).await;
    let (kept, lost) = (held[0].receipt.clone(), held[1].receipt.clone());
    // The lost job shows when a lease has passed. The renewed job must not appear with it, nor
    // after another lease.
    let mut last: Option<Instant> = None;
    let begin = Instant::now();
    while begin.elapsed() < SHORT * 5 / 2 {
        fixture.queue.renew("one", std::slice::from_ref(&kept)).await.expect("renewed");
        // Renewing a job of another consumer neither takes it nor extends its lease.
        fixture.queue.renew("other", std::slice::from_ref(&lost)).await.expect("renewed");
        for leased in fixture.queue.reclaim("two", 10).await.expect("reclaim") {
            assert_eq!(leased.receipt, lost, "the kept job was taken over");
            assert!(
                last.is_none_or(|last| last.elapsed() > SHORT / 2),
                "the take-over did not begin a lease"
            );
            last = Some(Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(last.is_some(), "the job that was not renewed stays with its consumer");
    fixture.queue.finish(&all_done(&held)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
}

pub async fn only_what_is_held_is_redelivered(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, SHORT).await else { return };
    let jobs = fixture.jobs(fixture.endpoint(0), 0..1_000);
    fixture.put(&jobs).await;
    let held = fixture.take("one", 1).await;
    let found = eventually("the held job", async || {
        let found = fixture.queue.reclaim("two", 2_000).await.expect("reclaim");
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(found.len(), 1, "999 have waited longer than the lease, and only wait");
    assert_eq!(found[0].receipt, held[0].receipt);
    let rest = fixture.take("two", 999).await;
    assert!(rest.iter().all(|leased| leased.first));
}

pub async fn held_room_depth(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    // Endpoints of every shard.
    let endpoints: Vec<_> =
        (0..20).map(|number| outrider_model::EndpointId::new(super::jobs::AT, number)).collect();
    let jobs: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| fixture.job(number as u64, *endpoint))
        .collect();
    fixture.put(&jobs).await;
    let mut asked: Vec<_> = jobs.iter().map(|job| (job.endpoint(), job.job.delivery)).collect();
    asked.insert(3, (endpoints[0], fixture.job(77, endpoints[0]).job.delivery));
    let held = fixture.queue.held(&asked).await.expect("held");
    assert_eq!(held.iter().filter(|generation| **generation == Some(1)).count(), 20);
    assert_eq!(held[3], None);
    let room: Vec<_> =
        jobs.iter().enumerate().map(|(number, job)| (job.job.recipient, number as u32)).collect();
    let expected: Vec<_> = (0..20_u32).map(|limit| limit.saturating_sub(1)).collect();
    assert_eq!(fixture.queue.room(&room).await.expect("room"), expected);
    assert_eq!(depth(&*fixture.queue).await, 20);
    assert!(fixture.queue.held(&[]).await.expect("held").is_empty());
    assert!(fixture.queue.enqueue(&[]).await.expect("enqueued").is_empty());
    fixture.queue.finish(&[]).await.expect("finished");
    fixture.queue.renew("one", &[]).await.expect("renewed");

    let taken = fixture.take("one", 20).await;
    let receipts: Vec<_> = taken.iter().map(|leased| leased.receipt.clone()).collect();
    assert!(fixture.queue.renew("one", &receipts).await.expect("renewed").is_empty());
    assert_eq!(fixture.queue.renew("two", &receipts).await.expect("renewed").len(), 20);
    fixture.queue.finish(&all_done(&taken)).await.expect("finished");
    assert!(fixture.queue.held(&asked).await.expect("held").iter().all(Option::is_none));
}

pub async fn finishing_twice_is_harmless(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let endpoint = fixture.endpoint(0);
    fixture.put(&fixture.jobs(endpoint, 0..2)).await;
    let taken = fixture.take("one", 2).await;
    let first = done(&taken[0]);
    fixture.queue.finish(&[first.clone(), first.clone()]).await.expect("finished");
    fixture.queue.finish(std::slice::from_ref(&first)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 1);
    assert_eq!(
        fixture.queue.room(&[(fixture.job(0, endpoint).job.recipient, 10)]).await.expect("room"),
        [9]
    );
    // A receipt that no queue ever issued does not affect the others of its batch.
    let mut nonsense = [first.clone(), first, done(&taken[1])];
    nonsense[0].receipt.entry = "nonsense".to_owned();
    nonsense[1].receipt.shard = 4_000_000_000;
    fixture.queue.finish(&nonsense).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
}

pub async fn an_older_generation_leaves_a_newer_one(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let endpoint = fixture.endpoint(0);
    let job = fixture.job(1, endpoint);
    fixture.put(std::slice::from_ref(&job)).await;
    let old = fixture.take("slow", 1).await;
    fixture.queue.finish(&all_done(&old)).await.expect("finished");
    fixture.put(&[fixture.job_of(1, endpoint, 2, 1_000)]).await;
    // The slow consumer reports once more.
    fixture.queue.finish(&all_done(&old)).await.expect("finished");
    assert_eq!(fixture.queue.held(&[(endpoint, job.job.delivery)]).await.expect("held"), [Some(2)]);
    assert_eq!(
        fixture.queue.room(&[(fixture.job(0, endpoint).job.recipient, 10)]).await.expect("room"),
        [9]
    );
    let new = fixture.take("one", 1).await;
    assert_eq!(new[0].job.generation, 2);
}

pub async fn order_is_kept(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let endpoint = fixture.endpoint(0);
    // More than one script call, and more than one call.
    fixture.put(&fixture.jobs(endpoint, 0..600)).await;
    fixture.put(&fixture.jobs(endpoint, 600..900)).await;
    let numbers: Vec<_> = fixture.take("one", 900).await.iter().map(number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

pub async fn a_reader_wakes_when_a_job_comes(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    let begin = Instant::now();
    assert!(
        fixture.queue.read("one", 5, Duration::from_millis(300)).await.expect("read").is_empty()
    );
    assert!(begin.elapsed() >= Duration::from_millis(290), "it waits");
    for endpoint in (0..8).map(|number| outrider_model::EndpointId::new(super::jobs::AT, number)) {
        let queue = Arc::clone(&fixture.queue);
        let reader = tokio::spawn(async move { queue.read("one", 5, BOUND).await });
        // The reader usually waits by now, but the result must be the same if it does not.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begin = Instant::now();
        fixture.put(&[fixture.job(1, endpoint)]).await;
        let jobs = timeout(BOUND, reader).await.expect("woken").expect("no panic").expect("read");
        assert_eq!(jobs.len(), 1);
        assert!(begin.elapsed() < BOUND / 2, "woken by the job, not by the end of the wait");
    }
}

pub async fn each_job_goes_to_one_of_many_readers(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    const JOBS: usize = 2_000;
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let queue = Arc::clone(&fixture.queue);
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                let consumer = format!("reader-{reader}");
                // Repeat until nothing arrives for a while.
                loop {
                    let jobs =
                        queue.read(&consumer, 64, Duration::from_secs(2)).await.expect("read");
                    if jobs.is_empty() {
                        return numbers;
                    }
                    numbers.extend(jobs.iter().map(number));
                    queue.finish(&all_done(&jobs)).await.expect("finished");
                }
            })
        })
        .collect();
    for chunk in 0..20_u64 {
        let numbers = chunk * 100..(chunk + 1) * 100;
        let jobs: Vec<_> = numbers
            .map(|number| {
                fixture.job(number, outrider_model::EndpointId::new(super::jobs::AT, number % 10))
            })
            .collect();
        fixture.put(&jobs).await;
    }
    let mut all = Vec::new();
    for reader in readers {
        all.extend(timeout(BOUND * 2, reader).await.expect("an end").expect("no panic"));
    }
    assert_eq!(all.len(), JOBS, "none twice");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), JOBS, "none lost");
    assert_eq!(depth(&*fixture.queue).await, 0);
}

pub async fn changes_are_announced(backend: &impl Backend) {
    let Some(fixture) = backend.make(ROOMY, LONG).await else { return };
    for _ in 0..3 {
        let queue = Arc::clone(&fixture.queue);
        let waiter = tokio::spawn(async move { queue.change_announced().await });
        // The listener may not be connected yet, because announcements are best effort.
        eventually("an announcement", async || {
            fixture.queue.announce_change().await.expect("announced");
            waiter.is_finished().then_some(())
        })
        .await;
    }
    // Dropping a waiting call is harmless.
    let _ = timeout(Duration::from_millis(10), fixture.queue.change_announced()).await;
}
