//! The rights of a Redis user: the documented rights suffice, and a missing one is named.

mod support;

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use outrider_model::Error;
use outrider_queue::{Options, Queue, RedisQueue};
use redis::Value;
use support::{
    backend::{Backend, Fixture, connect},
    eventually,
    jobs::{all_done, depth},
    server::{Cluster, Server},
    suite::{self, LONG, ROOMY, SHORT},
};

const PASSWORD: &str = "hunter2";
const STREAM: &str = "{outrider:2:1:0}:jobs";

/// Rights without which Outrider still works.
const WANTED: [&str; 8] = [
    "info",
    "xinfo|consumers",
    "xgroup|delconsumer",
    "publish",
    "subscribe",
    "client|id",
    "client|unblock",
    "ping",
];

/// Returns the words after `ACL SETUSER outrider` in docs/operations.md, for a user whose keys
/// begin with a prefix.
fn documented(prefix: &str) -> Vec<String> {
    let page = include_str!("../../../docs/operations.md");
    let line =
        page.lines().find_map(|line| line.strip_prefix("ACL SETUSER outrider ")).expect("the line");
    let word = |word: &str| match word {
        ">PASSWORD" => format!(">{PASSWORD}"),
        word => word.replace("outrider:", &format!("{prefix}:")),
    };
    line.split(' ').map(word).collect()
}

/// Returns the rights in that line.
fn rights() -> Vec<String> {
    documented("outrider")
        .iter()
        .filter_map(|word| word.strip_prefix('+'))
        .map(str::to_owned)
        .collect()
}

fn set_user(server: &Server, user: &str, words: &[String]) {
    let command: Vec<&str> =
        ["ACL", "SETUSER", user].into_iter().chain(words.iter().map(String::as_str)).collect();
    server.run::<Value>(&command);
}

fn change_user(server: &Server, user: &str, word: &str) {
    server.run::<Value>(&["ACL", "SETUSER", user, word]);
}

/// Revokes one right. Redis 6 cannot revoke single subcommands, so the user is created again
/// without it.
fn take_right(server: &Server, user: &str, right: &str) {
    let mut words = documented(user);
    words.retain(|word| word.strip_prefix('+') != Some(right));
    set_user(server, user, &words);
}

/// Returns options for a user whose name is the prefix.
fn options(server: &Server, user: &str) -> Options {
    Options {
        url: format!("redis://{user}:{PASSWORD}@127.0.0.1:{}", server.port).into(),
        prefix: user.to_owned(),
        command_timeout: Duration::from_secs(5),
        ..Options::default()
    }
}

/// Starts a server whose user has the documented rights, and a queue of that user.
async fn restricted() -> Option<(Fixture, Arc<RedisQueue>)> {
    let server = Server::start()?;
    set_user(&server, "outrider", &documented("outrider"));
    let queue = Arc::new(connect(options(&server, "outrider")).await.expect("a queue"));
    let epochs = queue.epochs().await.expect("epochs");
    let fixture =
        Fixture { queue: Arc::clone(&queue) as Arc<dyn Queue>, epochs, server: Some(server) };
    Some((fixture, queue))
}

async fn ready(queue: &dyn Queue) {
    eventually("it is ready", async || queue.ready().await.ok()).await;
}

async fn refusal(queue: &dyn Queue) -> Error {
    eventually("it is not ready", async || queue.ready().await.err()).await
}

/// Asserts that a job is queued, read and finished.
async fn works(queue: &Arc<RedisQueue>) {
    let epochs = eventually("epochs", async || queue.epochs().await.ok()).await;
    let fixture = Fixture { queue: Arc::clone(queue) as Arc<dyn Queue>, epochs, server: None };
    fixture.put(&[fixture.job(1, fixture.endpoint(0))]).await;
    let taken = fixture.take("one", 1).await;
    queue.renew("one", &[taken[0].receipt.clone()]).await.expect("renewed");
    queue.reclaim("one", 10).await.expect("reclaim");
    queue.finish(&all_done(&taken)).await.expect("finished");
    assert_eq!(depth(&**queue).await, 0);
}

/// Whether the metric shows that a command is refused. Other tests of this program may be refused
/// the same command.
fn counted(command: &str) -> bool {
    let needed = if WANTED.contains(&command) { "no" } else { "yes" };
    let text = String::from_utf8(outrider_telemetry::metrics::render()).expect("text");
    let sample = format!("outrider_queue_refused{{command=\"{command}\",needed=\"{needed}\"}} ");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(sample.as_str()))
        .unwrap_or_else(|| panic!("no {sample}"));
    value.parse::<i64>().expect("a number") > 0
}

/// The user of the documentation, on one server that is emptied for each queue.
struct Documented<'a>(&'a Server, u32);

impl Backend for Documented<'_> {
    async fn make(&self, window: u32, lease: Duration) -> Option<Fixture> {
        self.0.run::<Value>(&["FLUSHALL"]);
        let options = Options { shards: self.1, window, lease, ..options(self.0, "outrider") };
        let queue = Arc::new(connect(options).await.expect("a queue"));
        ready(&*queue).await;
        let epochs = queue.epochs().await.expect("epochs");
        Some(Fixture { queue, epochs, server: None })
    }
}

async fn the_documented_line_is_enough(shards: u32) {
    let Some(server) = Server::start() else { return };
    set_user(&server, "outrider", &documented("outrider"));
    let backend = Documented(&server, shards);
    suite::queue_read_finish(&backend).await;
    suite::shares_of_the_window(&backend).await;
    suite::a_dead_consumers_job_reaches_another(&backend).await;
    suite::renewing_keeps_a_job(&backend).await;
    suite::held_room_depth(&backend).await;
    suite::finishing_twice_is_harmless(&backend).await;
    suite::a_reader_wakes_when_a_job_comes(&backend).await;
    suite::each_job_goes_to_one_of_many_readers(&backend).await;
    suite::changes_are_announced(&backend).await;
    assert_eq!(server.run::<Vec<Value>>(&["ACL", "LOG"]), [], "nothing was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_line_is_enough_for_one_shard() {
    the_documented_line_is_enough(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_line_is_enough_for_three_shards() {
    the_documented_line_is_enough(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_line_is_enough_for_a_cluster() {
    let Some(cluster) = Cluster::start() else { return };
    let more = ["+cluster|slots", "+asking"].map(str::to_owned);
    let words = [documented("outrider"), more.into()].concat();
    cluster.nodes.iter().for_each(|node| set_user(node, "outrider", &words));
    let urls: Vec<_> = cluster.nodes.iter().map(|node| options(node, "outrider").url.0).collect();
    let options = Options {
        url: urls.join(",").into(),
        cluster: true,
        shards: 4,
        lease: SHORT,
        command_timeout: Duration::from_secs(10),
        ..Options::default()
    };
    let queue = Arc::new(connect(options).await.expect("a queue"));
    ready(&*queue).await;
    works(&queue).await;
    // Revoked on one node only: its shard is named, and the queue as a whole is not ready.
    let epochs = queue.epochs().await.expect("epochs");
    let fixture = Fixture { queue: Arc::clone(&queue) as Arc<dyn Queue>, epochs, server: None };
    cluster.nodes.iter().for_each(|node| change_user(node, "outrider", "-xadd"));
    let error =
        fixture.queue.enqueue(&[fixture.job(9, fixture.endpoint(0))]).await.expect_err("refused");
    assert!(error.message.contains("XADD is refused"), "{error}");
    assert!(refusal(&*queue).await.message.contains("XADD is refused"));
    cluster.nodes.iter().for_each(|node| change_user(node, "outrider", "+xadd"));
    ready(&*queue).await;
    works(&queue).await;
}

/// Revokes one right. A needed right is named with the server's words until it is granted; without
/// any other, the queue works.
async fn without(server: &Server, number: usize, right: &str) {
    let user = format!("user{number}");
    take_right(server, &user, right);
    let queue = Arc::new(connect(options(server, &user)).await.expect("a queue"));
    if WANTED.contains(&right) {
        ready(&*queue).await;
        works(&queue).await;
        // With one shard, CLIENT is not needed, and a refusal also answers PING.
        if !["client|id", "client|unblock", "ping"].contains(&right) {
            eventually("the metric", async || counted(right).then_some(())).await;
        }
        return;
    }
    let error = refusal(&*queue).await;
    let name = right.replace('|', " ").to_uppercase();
    assert!(error.message.contains(&format!("{name} is refused: \"")), "{right}: {error}");
    assert!(
        error.message.contains("permission") || error.message.contains("can't run this command"),
        "{right}: {error}"
    );
    assert!(
        error.message.contains(&format!("grant the user +{right} (docs/operations.md)")),
        "{right}: {error}"
    );
    assert!(counted(right), "{right}");
    assert_eq!(queue.epochs().await.expect_err("nothing is tried").message, error.message);
    change_user(server, &user, &format!("+{right}"));
    ready(&*queue).await;
    works(&queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_is_named_until_it_is_granted() {
    let Some(server) = Server::start() else { return };
    let rights = rights();
    assert!(rights.len() > 25, "{rights:?}");
    let all = futures::stream::iter(rights.iter().enumerate());
    all.for_each_concurrent(6, |(number, right)| without(&server, number, right)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_channels_and_databases_are_named() {
    let Some(server) = Server::start() else { return };
    for (words, expected) in [
        (
            vec!["resetkeys", "~{outrider:2:*}:jobs", "~{outrider:2:*}:held"],
            "the right to the keys is refused: \"NOPERM",
        ),
        (vec!["off"], "AUTH is refused"),
    ] {
        set_user(&server, "outrider", &documented("outrider"));
        words.iter().for_each(|word| change_user(&server, "outrider", word));
        let wrong =
            Options { command_timeout: Duration::from_millis(700), ..options(&server, "outrider") };
        let queue = connect(wrong).await.expect("a queue");
        let error = refusal(&queue).await;
        assert!(error.message.contains(expected), "{words:?}: {error}");
        assert!(
            !error.message.contains(PASSWORD) && !error.message.contains("127.0.0.1"),
            "{error}"
        );
    }
    set_user(&server, "outrider", &documented("outrider"));
    let another = Options {
        url: format!("redis://outrider:{PASSWORD}@127.0.0.1:{}/1", server.port).into(),
        command_timeout: Duration::from_millis(700),
        ..options(&server, "outrider")
    };
    let error = refusal(&connect(another).await.expect("a queue")).await;
    assert!(
        error.message.contains("SELECT is refused: \"") && error.message.contains("+select"),
        "{error}"
    );
    // The queue works without the channel.
    change_user(&server, "outrider", "resetchannels");
    let queue = Arc::new(connect(options(&server, "outrider")).await.expect("a queue"));
    ready(&*queue).await;
    let error = queue.announce_change().await.expect_err("refused");
    assert!(
        error.message.contains("PUBLISH is refused") && error.message.contains("&PREFIX:changes"),
        "{error}"
    );
    works(&queue).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_no_password_and_who_renames_commands_is_told() {
    let Some(server) = Server::with(&["--rename-command", "XADD", "HIDDEN"]) else { return };
    let as_default = |url: String| Options {
        url: url.into(),
        command_timeout: Duration::from_millis(700),
        ..options(&server, "outrider")
    };
    let error = refusal(&connect(as_default(server.url())).await.expect("a queue")).await;
    assert!(
        error.message.contains("XADD is refused") && error.message.contains("its own name"),
        "{error}"
    );
    server.run::<Value>(&["CONFIG", "SET", "requirepass", PASSWORD]);
    let error = refusal(&connect(as_default(server.url())).await.expect("a queue")).await;
    assert!(error.message.contains("NOAUTH") && error.message.contains("queue.url"), "{error}");
}

/// Asserts that each place has its entry, and that the counts match.
fn assert_sound(server: &Server) {
    let held: i64 = server.run(&["HLEN", "{outrider:2:1:0}:held"]);
    assert_eq!(held, server.run::<i64>(&["XLEN", STREAM]));
    let counts: Vec<(Vec<u8>, i64)> = server.run(&["HGETALL", "{outrider:2:1:0}:counts"]);
    let jobs =
        counts.iter().filter(|(name, _)| name[0] == b'n').map(|(_, count)| count).sum::<i64>();
    assert_eq!(jobs, held, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_halfway_is_made_anew() {
    let Some((mut fixture, queue)) = restricted().await else { return };
    let server = fixture.server.take().expect("a server");
    let endpoint = fixture.endpoint(0);
    // The last also lacks the right that is needed to remove the epoch.
    for missing in
        [vec!["-xadd"], vec!["-hlen"], vec!["-hincrby"], vec!["-xdel"], vec!["-xadd", "-unlink"]]
    {
        ready(&*queue).await;
        fixture.epochs = eventually("epochs", async || queue.epochs().await.ok()).await;
        fixture.put(&fixture.jobs(endpoint, 0..3)).await;
        let taken = fixture.take("one", 2).await;
        missing.iter().for_each(|word| change_user(&server, "outrider", word));
        let first = missing[0].trim_start_matches('-').to_uppercase();
        let error = match first.as_str() {
            "XADD" => queue.enqueue(&fixture.jobs(endpoint, 10..13)).await.map(drop),
            _ => queue.finish(&all_done(&taken)).await,
        };
        let error = error.expect_err("refused");
        assert!(error.message.contains(&format!("{first} is refused: \"")), "{error}");
        assert!(refusal(&*queue).await.message.to_uppercase().contains(&first));
        missing.iter().for_each(|word| change_user(&server, "outrider", &word.replace('-', "+")));
        ready(&*queue).await;
        let epochs = eventually("epochs", async || queue.epochs().await.ok()).await;
        assert_ne!(epochs, fixture.epochs, "{missing:?}: what is half written is not believed");
        assert_eq!(queue.epochs().await.expect("epochs"), epochs, "it changes once");
        fixture.epochs = epochs;
        assert_eq!(depth(&*queue).await, 0);
        fixture.put(&fixture.jobs(endpoint, 0..13)).await;
        let taken = fixture.take("two", 13).await;
        assert_sound(&server);
        queue.finish(&all_done(&taken)).await.expect("finished");
        assert_sound(&server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_before_anything_is_written_costs_nothing() {
    let Some((fixture, queue)) = restricted().await else { return };
    let server = fixture.server.as_ref().expect("a server");
    fixture.put(&fixture.jobs(fixture.endpoint(0), 0..3)).await;
    for right in ["hset", "hmget", "xinfo|groups", "xreadgroup"] {
        take_right(server, "outrider", right);
        let _ = queue.enqueue(&fixture.jobs(fixture.endpoint(0), 3..4)).await;
        let _ = queue.read("one", 0, Duration::ZERO).await;
        change_user(server, "outrider", &format!("+{right}"));
        ready(&*queue).await;
        assert_eq!(queue.epochs().await.expect("epochs"), fixture.epochs, "{right}");
    }
    let expected = usize::try_from(depth(&*queue).await).expect("a few");
    assert_eq!(fixture.take("one", expected).await.len(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_info_a_loss_of_everything_is_noticed() {
    let Some((mut fixture, with)) = restricted().await else { return };
    let server = fixture.server.take().expect("a server");
    let words = [documented("outrider"), vec!["-info".to_owned()]].concat();
    set_user(&server, "blind", &words);
    let url = format!("redis://blind:{PASSWORD}@127.0.0.1:{}", server.port).into();
    let blind = connect(Options { url, ..options(&server, "outrider") }).await.expect("a queue");
    let blind = Arc::new(blind);
    ready(&*blind).await;
    for _ in 0..3 {
        assert_eq!(
            blind.epochs().await.expect("epochs"),
            fixture.epochs,
            "one that cannot tell clears nothing"
        );
        assert_eq!(with.epochs().await.expect("epochs"), fixture.epochs);
    }
    server.run::<Value>(&["FLUSHALL"]);
    let made = blind.epochs().await.expect("epochs");
    assert_ne!(made, fixture.epochs);
    let seen = with.epochs().await.expect("epochs");
    assert_ne!(seen, made, "one that can tell does not believe one that cannot");
    for _ in 0..3 {
        assert_eq!(with.epochs().await.expect("epochs"), seen);
        assert_eq!(blind.epochs().await.expect("epochs"), seen);
    }
    works(&blind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_end_waits_three_shards_are_read_all_the_same() {
    for right in ["client|id", "client|unblock"] {
        let Some(server) = Server::start() else { return };
        take_right(&server, "outrider", right);
        let options =
            Options { shards: 3, lease: LONG, window: ROOMY, ..options(&server, "outrider") };
        let queue = Arc::new(connect(options).await.expect("a queue"));
        ready(&*queue).await;
        works(&queue).await;
        let epochs = queue.epochs().await.expect("epochs");
        let fixture = Fixture { queue: Arc::clone(&queue) as Arc<dyn Queue>, epochs, server: None };
        // A reader with a long wait still gets its job soon, at the latest when the missing right
        // is noticed.
        for number in 0..3 {
            let reader = Arc::clone(&queue);
            let read =
                tokio::spawn(async move { reader.read("one", 30, Duration::from_secs(3)).await });
            eventually("the reader waits", async || {
                let about: String = server.run(&["INFO", "clients"]);
                (!about.contains("blocked_clients:0")).then_some(())
            })
            .await;
            fixture.put(&[fixture.job(10 + number, fixture.endpoint(0))]).await;
            let taken = read.await.expect("no panic").expect("read");
            assert_eq!(taken.len(), 1, "{right}");
            queue.finish(&all_done(&taken)).await.expect("finished");
        }
        assert!(counted(right), "{right}");
        let begin = tokio::time::Instant::now();
        fixture.put(&[fixture.job(20, fixture.endpoint(0))]).await;
        assert_eq!(queue.read("one", 30, Duration::from_secs(20)).await.expect("read").len(), 1);
        assert!(begin.elapsed() < Duration::from_secs(10), "{right}: {:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_a_dead_worker_is_taken_over_without_the_right_to_forget_workers() {
    let Some(server) = Server::start() else { return };
    take_right(&server, "outrider", "xinfo|consumers");
    suite::a_dead_consumers_job_reaches_another(&Documented(&server, 1)).await;
}

/// Listeners recognize the probe of the right to publish, and continue to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_announces_nothing() {
    let Some((fixture, queue)) = restricted().await else { return };
    let server = fixture.server.as_ref().expect("a server");
    let url = server.url();
    let mut others =
        redis::Client::open(url).expect("a URL").get_async_pubsub().await.expect("a connection");
    others.subscribe("outrider:changes").await.expect("subscribed");
    let publish = |text| server.run::<i64>(&["PUBLISH", "outrider:changes", text]);
    eventually("the queue listens", async || (publish("probe") == 2).then_some(())).await;
    let waiter = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.change_announced().await }
    });
    // Another process starts and probes its rights.
    let another = connect(options(server, "outrider")).await.expect("a queue");
    ready(&another).await;
    let mut messages = others.on_message();
    let first = messages.next().await.expect("a message");
    assert_eq!(first.get_payload_bytes(), b"probe");
    for _ in 0..20 {
        publish("probe");
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiter.is_finished(), "a probe was taken for a change");
    }
    another.announce_change().await.expect("announced");
    tokio::time::timeout(Duration::from_secs(20), waiter)
        .await
        .expect("told of the change")
        .expect("no panic");
    while messages.next().await.expect("a message").get_payload_bytes() == b"probe" {}
}
