//! Faults of Redis: it is emptied, restarted, frozen, full, fed garbage, or gone.

mod support;

use std::{sync::Arc, time::Duration};

use outrider_model::Reason;
use outrider_queue::{Enqueued, Options, Queue};
use redis::Value;
use support::{
    BOUND,
    backend::{Backend as _, Fixture, Redis, connect, options},
    eventually,
    jobs::{all_done, carry, depth, done, number},
    server::Server,
    suite::{LONG, ROOMY, SHORT},
};
use tokio::time::{Instant, timeout};

const STREAM: &str = "{outrider:2:1:0}:jobs";
const HELD: &str = "{outrider:2:1:0}:held";
const COUNTS: &str = "{outrider:2:1:0}:counts";

async fn redis() -> Option<Fixture> {
    Redis(1).make(ROOMY, LONG).await
}

/// Returns the new epochs, once they differ from the old.
async fn new_epochs(fixture: &Fixture) -> Vec<i64> {
    let epochs = eventually("an answer", async || fixture.queue.epochs().await.ok()).await;
    assert_ne!(epochs, fixture.epochs);
    assert_eq!(fixture.queue.epochs().await.expect("epochs"), epochs, "it changes once");
    epochs
}

/// Asserts that the counts equal what is held: as many jobs as places, and the same units of
/// endpoints, projects and organizations as in total.
fn assert_no_drift(server: &Server) {
    let held: i64 = server.run(&["HLEN", HELD]);
    let entries: i64 = server.run(&["XLEN", STREAM]);
    assert_eq!(held, entries, "each place has its entry");
    let counts: Vec<(Vec<u8>, i64)> = server.run(&["HGETALL", COUNTS]);
    assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
    let sum = |tag: u8| {
        counts.iter().filter(|(name, _)| name[0] == tag).map(|(_, count)| count).sum::<i64>()
    };
    assert_eq!(sum(b'n'), held, "{counts:?}");
    assert_eq!([b'e', b'p', b'o'].map(sum), [sum(b't'); 3], "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_has_a_new_epoch_and_reading_goes_on() {
    let Some(mut fixture) = redis().await else { return };
    let endpoint = fixture.endpoint(0);
    fixture.put(&fixture.jobs(endpoint, 0..5)).await;
    let lost = fixture.take("one", 2).await;

    // A reader waits in the meantime, and still gets the next job.
    let queue = Arc::clone(&fixture.queue);
    let reader = tokio::spawn(async move {
        loop {
            // The call may report that the server was emptied. The test then reads again, as a
            // worker does.
            match queue.read("two", 10, BOUND).await {
                Ok(jobs) if jobs.iter().any(|leased| number(leased) == 100) => return jobs,
                Ok(_) => {}
                Err(error) => assert_eq!(error.reason, Reason::Unavailable),
            }
        }
    });
    fixture.server().run::<Value>(&["FLUSHALL"]);
    assert_eq!(
        fixture.queue.enqueue(&[fixture.job(7, endpoint)]).await.expect("enqueued"),
        [Enqueued::WrongEpoch],
        "nothing goes into a shard that is not known"
    );
    fixture.epochs = new_epochs(&fixture).await;
    assert_eq!(depth(&*fixture.queue).await, 0, "old jobs are gone");
    fixture.put(&[fixture.job(100, endpoint)]).await;
    let jobs = timeout(BOUND, reader).await.expect("read").expect("no panic");
    assert_eq!(jobs.len(), 1);

    // Earlier receipts have no effect.
    fixture.queue.renew("one", &[lost[0].receipt.clone()]).await.expect("renewed");
    fixture.queue.finish(&all_done(&lost)).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 1);
    assert_no_drift(fixture.server());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_group_is_made_again_and_the_rest_of_the_shard_is_not_trusted() {
    let Some(mut fixture) = redis().await else { return };
    let endpoint = fixture.endpoint(0);
    fixture.put(&fixture.jobs(endpoint, 0..5)).await;
    // Only the stream is deleted, so the places would never be freed.
    fixture.server().run::<Value>(&["DEL", STREAM]);
    eventually("reading goes on", async || {
        fixture.queue.read("one", 10, Duration::ZERO).await.ok()
    })
    .await;
    assert!(fixture.queue.reclaim("one", 10).await.expect("reclaim").is_empty());
    fixture.epochs = new_epochs(&fixture).await;
    assert_eq!(depth(&*fixture.queue).await, 0);
    fixture.put(&fixture.jobs(endpoint, 0..5)).await;
    assert_eq!(fixture.take("one", 5).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reclaim_alone_makes_a_lost_group_again() {
    let Some(fixture) = redis().await else { return };
    fixture.server().run::<Value>(&["FLUSHALL"]);
    assert!(fixture.queue.reclaim("one", 10).await.expect("reclaim").is_empty());
    assert_eq!(fixture.server().run::<i64>(&["EXISTS", STREAM]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_another_even_if_it_forgot_nothing() {
    let Some(server) = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let queue = Arc::new(connect(options(&server)).await.expect("a queue"));
    let epochs = queue.epochs().await.expect("epochs");
    let mut fixture = Fixture { queue, epochs, server: Some(server) };
    let endpoint = fixture.endpoint(0);
    fixture.put(&fixture.jobs(endpoint, 0..5)).await;
    let held = fixture.take("one", 2).await;
    fixture.server.as_mut().expect("a server").restart();
    assert_eq!(fixture.server().run::<i64>(&["HLEN", HELD]), 5, "the server forgot nothing");

    fixture.epochs = new_epochs(&fixture).await;
    assert_eq!(depth(&*fixture.queue).await, 0);
    fixture.queue.finish(&all_done(&held)).await.expect("finished");
    fixture.put(&fixture.jobs(endpoint, 0..5)).await;
    let taken = eventually("reading goes on", async || {
        fixture
            .queue
            .read("one", 10, Duration::from_secs(1))
            .await
            .ok()
            .filter(|jobs| !jobs.is_empty())
    })
    .await;
    assert_eq!(taken.len(), 5);
    assert_no_drift(fixture.server());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_changes_nothing_until_it_takes_over() {
    let Some(mut fixture) = redis().await else { return };
    let Some(replica) = Server::start() else { return };
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..3)).await;
    follow(&replica, fixture.server()).await;
    assert_eq!(replica.run::<i64>(&["HLEN", HELD]), 3);
    assert_eq!(
        fixture.queue.epochs().await.expect("epochs"),
        fixture.epochs,
        "the same server with the same data"
    );

    // The replica may lack the latest writes, so it is another server.
    replica.run::<Value>(&["REPLICAOF", "NO", "ONE"]);
    let other = connect(options(&replica)).await.expect("a queue");
    assert_ne!(other.epochs().await.expect("epochs"), fixture.epochs);
    assert_eq!(depth(&other).await, 0);

    // The first one follows it and takes over again: the same process with the data of another.
    follow(fixture.server(), &replica).await;
    assert_eq!(fixture.queue.epochs().await.expect_err("read only").reason, Reason::Unavailable);
    fixture.server().run::<Value>(&["REPLICAOF", "NO", "ONE"]);
    fixture.epochs = new_epochs(&fixture).await;
}

/// Makes one server the replica of another, and waits until it has its data.
async fn follow(replica: &Server, master: &Server) {
    replica.run::<Value>(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    eventually("the replica has the data", async || {
        let about: String = replica.run(&["INFO", "replication"]);
        (about.contains("master_link_status:up") && about.contains("master_sync_in_progress:0"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_fails_commands_in_time_and_then_serves_again() {
    let Some(server) = Server::start() else { return };
    let bound = Duration::from_millis(500);
    let queue = Arc::new(
        connect(Options { command_timeout: bound, ..options(&server) }).await.expect("a queue"),
    );
    let epochs = eventually("epochs", async || queue.epochs().await.ok()).await;
    let fixture = Fixture { queue, epochs, server: Some(server) };
    let job = fixture.job(1, fixture.endpoint(0));
    fixture.server().freeze();
    // There are more calls than connections, and none waits for the failures of others.
    let begin = Instant::now();
    let calls = (0..40).map(|_| async {
        let error = fixture.queue.enqueue(std::slice::from_ref(&job)).await.expect_err("frozen");
        assert_eq!(error.reason, Reason::Unavailable);
        assert!(!error.message.contains("127.0.0.1"), "{error}");
    });
    futures::future::join_all(calls).await;
    assert!(begin.elapsed() < bound * 4, "{:?}", begin.elapsed());
    assert!(fixture.queue.epochs().await.is_err());
    assert!(fixture.queue.announce_change().await.is_err());
    let begin = Instant::now();
    fixture.queue.read("one", 1, Duration::from_millis(100)).await.expect_err("frozen");
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());

    fixture.server().thaw();
    let results = eventually("an answer", async || {
        fixture.queue.enqueue(std::slice::from_ref(&job)).await.ok()
    })
    .await;
    // A call that timed out may have reached the server. The job is then present, once.
    assert!(matches!(results[..], [Enqueued::Queued | Enqueued::Present]), "{results:?}");
    let taken = eventually("the job", async || {
        fixture
            .queue
            .read("one", 10, Duration::from_secs(1))
            .await
            .ok()
            .filter(|jobs| !jobs.is_empty())
    })
    .await;
    assert_eq!(taken.len(), 1);
    assert_eq!(
        fixture.queue.epochs().await.expect("epochs"),
        fixture.epochs,
        "it is the same server"
    );
    assert_no_drift(fixture.server());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_no_reason_not_to_start() {
    let Some(mut server) = Server::start() else { return };
    server.kill();
    let queue =
        connect(Options { command_timeout: Duration::from_millis(500), ..options(&server) }).await;
    let queue = queue.expect("a queue that waits for its server");
    assert_eq!(queue.epochs().await.expect_err("gone").reason, Reason::Unavailable);
    server.restart();
    let epochs = eventually("epochs", async || queue.epochs().await.ok()).await;
    assert!(epochs[0] > 0);
    // Announcements also arrive, once the listener is connected again.
    eventually("an announcement", async || {
        let _ = queue.announce_change().await;
        timeout(Duration::from_millis(100), queue.change_announced()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listener_connects_again() {
    let Some(mut fixture) = redis().await else { return };
    fixture.server.as_mut().expect("a server").restart();
    eventually("an announcement", async || {
        let _ = fixture.queue.announce_change().await;
        timeout(Duration::from_millis(100), fixture.queue.change_announced()).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_removed_and_never_comes_back() {
    let Some(fixture) = Redis(1).make(ROOMY, SHORT).await else { return };
    let server = fixture.server();
    for (field, value) in [("job", "no protobuf \u{1f}"), ("other", "x"), ("job", "")] {
        server.run::<String>(&["XADD", STREAM, "*", field, value]);
    }
    server.run::<String>(&["XADD", STREAM, "*", "job", "a", "job", "b"]);
    fixture.put(&[fixture.job(1, fixture.endpoint(0))]).await;
    let taken = fixture.take("one", 1).await;
    assert_eq!(number(&taken[0]), 1);
    eventually("only the job is left", async || {
        (server.run::<i64>(&["XLEN", STREAM]) == 1).then_some(())
    })
    .await;

    // The consumer that takes over removes garbage that a dead consumer took.
    server.run::<String>(&["XADD", STREAM, "*", "other", "x"]);
    server.run::<Value>(&["XREADGROUP", "GROUP", "workers", "dead", "STREAMS", STREAM, ">"]);
    eventually("the garbage is gone", async || {
        let reclaimed = fixture.queue.reclaim("two", 10).await.expect("reclaim");
        assert!(reclaimed.iter().all(|leased| number(leased) == 1));
        (server.run::<i64>(&["XLEN", STREAM]) == 1).then_some(())
    })
    .await;
    // The same holds for an entry that was deleted while it was held.
    server.run::<Value>(&["XDEL", STREAM, &taken[0].receipt.entry]);
    eventually("nothing is held", async || {
        assert!(fixture.queue.reclaim("two", 10).await.expect("reclaim").len() <= 1);
        let pending: Vec<Value> = server.run(&["XPENDING", STREAM, "workers"]);
        (pending[0] == Value::Int(0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_ask_at_once_agree_on_one_new_epoch() {
    let Some(server) = Server::start() else { return };
    let mut queues = Vec::new();
    for _ in 0..6 {
        queues.push(Arc::new(connect(options(&server)).await.expect("a queue")));
    }
    for _ in 0..20 {
        server.run::<Value>(&["FLUSHALL"]);
        let asks = queues.iter().map(|queue| {
            let queue = Arc::clone(queue);
            tokio::spawn(async move { queue.epochs().await.expect("epochs") })
        });
        let mut answers = Vec::new();
        for ask in asks.collect::<Vec<_>>() {
            answers.push(ask.await.expect("no panic"));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_refuses_jobs_whole_and_lets_them_go() {
    let Some(fixture) = redis().await else { return };
    let server = fixture.server();
    let endpoint = fixture.endpoint(0);
    fixture.put(&fixture.jobs(endpoint, 0..20)).await;
    let taken = fixture.take("one", 10).await;
    server.run::<Value>(&["CONFIG", "SET", "maxmemory", "1"]);

    let error = fixture.queue.enqueue(&fixture.jobs(endpoint, 20..40)).await.expect_err("full");
    assert_eq!(error.reason, Reason::Unavailable);
    assert!(error.message.contains("memory"), "{error}");
    assert_eq!(depth(&*fixture.queue).await, 20, "refused as a whole");
    assert_no_drift(server);

    // Existing jobs are still read, renewed, taken over and finished.
    fixture.queue.finish(&all_done(&taken[..5])).await.expect("finished");
    assert_no_drift(server);
    assert_eq!(
        fixture.queue.room(&[(fixture.job(0, endpoint).job.recipient, 100)]).await.expect("room"),
        [85]
    );
    let rest = fixture.take("one", 10).await;
    fixture.queue.renew("one", &[rest[0].receipt.clone()]).await.expect("renewed");
    fixture.queue.reclaim("two", 10).await.expect("reclaim");
    assert_eq!(fixture.queue.epochs().await.expect("epochs"), fixture.epochs);
    fixture.queue.finish(&all_done(&taken[5..])).await.expect("finished");
    fixture.queue.finish(&all_done(&rest)).await.expect("finished");
    assert_no_drift(server);
    assert_eq!(depth(&*fixture.queue).await, 0);

    server.run::<Value>(&["CONFIG", "SET", "maxmemory", "0"]);
    fixture.put(&fixture.jobs(endpoint, 20..40)).await;
    assert_no_drift(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fills_up_keeps_whole_batches_only() {
    let Some(fixture) = redis().await else { return };
    let server = fixture.server();
    let about: String = server.run(&["INFO", "memory"]);
    let used: u64 = about
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .expect("used")
        .trim()
        .parse()
        .expect("a number");
    server.run::<Value>(&["CONFIG", "SET", "maxmemory", &(used + 3_000_000).to_string()]);
    let endpoint = fixture.endpoint(0);
    let payload = bytes::Bytes::from(vec![b'x'; 10_000]);
    let mut queued = 0;
    let refused = (0..1_000_u64).find(|batch| {
        let mut jobs = fixture.jobs(endpoint, batch * 10..batch * 10 + 10);
        for job in &mut jobs {
            carry(job, payload.clone());
            job.endpoint_limit = 100_000;
        }
        let queue = Arc::clone(&fixture.queue);
        let result = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(queue.enqueue(&jobs))
        });
        match result {
            Ok(results) => {
                assert!(results.iter().all(|result| *result == Enqueued::Queued), "{results:?}");
                queued += 10;
                false
            }
            Err(_) => true,
        }
    });
    assert!(refused.is_some() && queued > 0, "{queued}");
    assert_eq!(depth(&*fixture.queue).await, queued);
    assert_no_drift(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_that_is_full_still_gets_an_epoch() {
    let Some(mut fixture) = redis().await else { return };
    fixture.server().run::<Value>(&["FLUSHALL"]);
    fixture.server().run::<Value>(&["CONFIG", "SET", "maxmemory", "1"]);
    fixture.epochs = new_epochs(&fixture).await;
    fixture.server().run::<Value>(&["CONFIG", "SET", "maxmemory", "0"]);
    fixture.put(&[fixture.job(1, fixture.endpoint(0))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_our_keys_is_refused() {
    let Some(server) = Server::with(&["--maxmemory-policy", "allkeys-lru"]) else { return };
    let error = connect(options(&server)).await.err().expect("refused");
    assert_eq!(error.reason, Reason::FailedPrecondition);
    assert!(error.message.contains("noeviction"), "{error}");
    // Outrider's keys never expire, so policies that evict only expiring keys are accepted.
    server.run::<Value>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let queue = connect(options(&server)).await.expect("a queue");
    server.run::<Value>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    assert_eq!(queue.epochs().await.expect_err("changed").reason, Reason::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_the_server_forgot_are_given_to_it_again() {
    let Some(fixture) = redis().await else { return };
    fixture.server().run::<Value>(&["SCRIPT", "FLUSH"]);
    fixture.put(&[fixture.job(1, fixture.endpoint(0))]).await;
    let taken = fixture.take("one", 1).await;
    fixture.server().run::<Value>(&["SCRIPT", "FLUSH"]);
    fixture.queue.finish(&[done(&taken[0])]).await.expect("finished");
    assert_eq!(depth(&*fixture.queue).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_used_and_never_told() {
    let Some(server) = Server::with(&["--appendonly", "no"]) else { return };
    server.run::<Value>(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let with = |password: &str| Options {
        url: format!("redis://:{password}@127.0.0.1:{}", server.port).into(),
        ..options(&server)
    };
    let queue = connect(with("hunter2")).await.expect("a queue");
    assert!(queue.read("one", 1, Duration::ZERO).await.expect("read").is_empty());
    let wrong = Options { command_timeout: Duration::from_millis(500), ..with("hunter3") };
    let wrong = connect(wrong).await.expect("a queue that hopes");
    for error in [
        wrong.epochs().await.expect_err("wrong"),
        wrong.read("one", 1, Duration::ZERO).await.expect_err("wrong"),
    ] {
        assert_eq!(error.reason, Reason::Unavailable);
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        assert!(
            error.message.contains("AUTH is refused") && error.message.contains("queue.url"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_are_gone_are_forgotten() {
    // Twenty leases.
    let lease = Duration::from_millis(100);
    let Some(fixture) = Redis(1).make(ROOMY, lease).await else { return };
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..2)).await;
    // Some versions only know a consumer after it received something.
    for consumer in ["gone", "here"] {
        let taken = fixture.take(consumer, 1).await;
        fixture.queue.finish(&all_done(&taken)).await.expect("finished");
    }
    let names = || {
        fixture.server().run::<Vec<Vec<Value>>>(&["XINFO", "CONSUMERS", STREAM, "workers"]).len()
    };
    assert_eq!(names(), 2);
    eventually("one consumer is left", async || {
        fixture.queue.reclaim("here", 10).await.expect("reclaim");
        (names() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_shards_is_another_set_of_keys() {
    let Some(fixture) = redis().await else { return };
    fixture.put(&[fixture.job(1, fixture.endpoint(0))]).await;
    let two = Options { shards: 2, ..options(fixture.server()) };
    let two = connect(two).await.expect("a queue");
    assert_eq!(two.epochs().await.expect("epochs").len(), 2);
    assert_eq!(depth(&two).await, 0);
    assert_eq!(depth(&*fixture.queue).await, 1);
}
