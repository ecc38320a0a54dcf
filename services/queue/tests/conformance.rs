//! One suite for every backend.

mod support;

use std::time::Duration;

use outrider_queue::{Options, Queue as _, RedisQueue, RedisTls};
use support::{
    backend::{Backend as _, Embedded, InCluster, Redis, RedisByTls},
    jobs::{depth, number},
    server::Cluster,
    suite,
    tls::Certificates,
};

macro_rules! conformance {
    ($($backend:ident = $make:expr;)*) => {$(
        mod $backend {
            use super::*;
            conformance!(@cases $make;
                queue_read_finish max_is_kept endpoint_limit shares_of_the_window
                units_of_the_window present wrong_epoch a_dead_consumers_job_reaches_another
                renewing_keeps_a_job only_what_is_held_is_redelivered held_room_depth
                finishing_twice_is_harmless an_older_generation_leaves_a_newer_one order_is_kept
                a_reader_wakes_when_a_job_comes each_job_goes_to_one_of_many_readers
                changes_are_announced
            );
        }
    )*};
    (@cases $make:expr; $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            suite::$case(&$make).await;
        }
    )*};
}

conformance! {
    embedded = Embedded(1);
    embedded_in_three_shards = Embedded(3);
    redis = Redis(1);
    redis_in_three_shards = Redis(3);
    redis_by_tls = RedisByTls;
}

/// A cluster takes seconds to form, so several cases share one. Each has its own keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_conforms() {
    let Some(cluster) = Cluster::start() else { return };
    suite::queue_read_finish(&InCluster(&cluster, 4, "a")).await;
    suite::endpoint_limit(&InCluster(&cluster, 4, "b")).await;
    suite::wrong_epoch(&InCluster(&cluster, 4, "c")).await;
    suite::a_dead_consumers_job_reaches_another(&InCluster(&cluster, 4, "d")).await;
    suite::held_room_depth(&InCluster(&cluster, 4, "e")).await;
    suite::a_reader_wakes_when_a_job_comes(&InCluster(&cluster, 4, "f")).await;
    suite::each_job_goes_to_one_of_many_readers(&InCluster(&cluster, 4, "g")).await;
    suite::changes_are_announced(&InCluster(&cluster, 4, "h")).await;
    suite::max_is_kept(&InCluster(&cluster, 4, "i")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_by_tls_is_not_reached_without_what_it_asks_for() {
    let certificates = Certificates::new();
    let Some(server) = certificates.server() else { return };
    let (options, good) = (certificates.options(&server), certificates.tls());
    let strangers = Certificates::new().tls();
    for tls in [
        RedisTls { identity: None, ..good.clone() },
        RedisTls { identity: strangers.identity, ..good.clone() },
        RedisTls { authorities: strangers.authorities, ..good.clone() },
        RedisTls { authorities: None, ..good.clone() },
    ] {
        let options = Options { command_timeout: Duration::from_secs(2), ..options.clone() };
        let queue = RedisQueue::connect(options, &tls).await;
        assert!(queue.expect("it may be down").epochs().await.is_err());
    }
    let queue = RedisQueue::connect(options, &good).await.expect("a queue");
    queue.epochs().await.expect("epochs");
}

/// During an upgrade, a process of the previous version reads jobs that it cannot send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_newer_version_are_finished_and_their_places_freed() {
    let Some(fixture) = Redis(1).make(suite::ROOMY, suite::LONG).await else { return };
    let server = fixture.server();
    let endpoint = fixture.endpoint(0);
    let jobs = fixture.jobs(endpoint, 0..2);
    fixture.put(&jobs).await;
    // Field 1, the version, a second time. The last one counts.
    let newer = "local entry = redis.call('XRANGE', KEYS[1], '-', '+')[1] \
        redis.call('XDEL', KEYS[1], entry[1]) \
        return redis.call('XADD', KEYS[1], '*', 'job', entry[2][2] .. '\\8\\2')";
    server.run::<String>(&["EVAL", newer, "1", "{outrider:2:1:0}:jobs"]);
    let taken = fixture.take("one", 1).await;
    assert_eq!(number(&taken[0]), 1);
    fixture.nothing("one").await;
    let held = fixture.queue.held(&[(endpoint, jobs[0].job.delivery)]).await.expect("held");
    assert_eq!(held, [None], "the feeder finds its delivery again");
    assert_eq!(depth(&*fixture.queue).await, 1);
}
