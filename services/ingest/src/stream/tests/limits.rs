//! Windows, buffers, timeouts, and the shutdown of the process.

use std::{sync::atomic::Ordering, time::Duration};

use outrider_model::{OrganizationId, Principal, Reason, Timestamp};

use super::bench::{Bench, Client, LONG, event};
use crate::options::Options;

/// Sends events until the server takes no more for a while. Returns how many it took.
async fn push(client: &Client, payload: &str, most: u64) -> u64 {
    const A_WHILE: Duration = Duration::from_millis(300);
    for sequence in 1..=most {
        match tokio::time::timeout(A_WHILE, client.offer(event(sequence, payload))).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return sequence - 1,
        }
    }
    most
}

fn close_gate(bench: &Bench) {
    bench.intake.gate.forget_permits(usize::MAX >> 4);
}

#[tokio::test]
async fn no_more_is_read_than_the_window_holds() {
    // One event waits in the channel of the test, and another may be on its way through it.
    let beyond = 2;
    let bench = Bench::with(Options { stream_window_events: 10, ..Options::default() }).await;
    close_gate(&bench);
    let mut client = bench.open("s").await;
    let taken = push(&client, "1", 1_000).await;
    assert!((10..=10 + beyond).contains(&taken), "{taken}");
    bench.intake.gate.add_permits(1_000);
    client.acked(taken).await;

    let bench = Bench::with(Options { stream_window_bytes: 10_000, ..Options::default() }).await;
    close_gate(&bench);
    let client = bench.open("s").await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    let taken = push(&client, &payload, 1_000).await;
    assert!((7..=10 + beyond).contains(&taken), "{taken}");
}

#[tokio::test]
async fn streams_share_the_room_of_the_process_and_give_it_back() {
    let bench = Bench::with(Options { stream_buffer_bytes: 40_000, ..Options::default() }).await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    close_gate(&bench);
    let first = bench.open("a").await;
    assert!((7..=12).contains(&push(&first, &payload, 1_000).await));
    let mut second = bench.open("b").await;
    let taken = push(&second, &payload, 1_000).await;
    assert!((1..=2).contains(&taken), "the buffer is full: {taken}");
    // The buffer of a stream is free when the stream is gone.
    drop(first);
    bench.intake.gate.add_permits(1_000);
    second.half_close();
    second.acked(taken).await;
    assert!(second.message().await.is_none());
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_read_no_further() {
    let bench = Bench::with(Options { stream_window_events: 100, ..Options::default() }).await;
    let mut client = bench.open("s").await;
    // Each event is rejected, and so has its own message.
    let taken = push(&client, "{", 10_000).await;
    assert!(taken < 500, "{taken}");
    let rejected = client.acked(taken).await.2;
    assert_eq!(rejected.len() as u64, taken);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_holds_no_room_and_is_cut() {
    let options = Options {
        stream_buffer_bytes: 40_000,
        stream_idle_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    let bench = Bench::with(options).await;
    let mut silent = bench.open("a").await;
    // More rejections than the channel holds: the following events are committed but cannot be
    // acknowledged.
    silent.send_all((1..=100).map(|sequence| event(sequence, "{"))).await;
    let payload = format!("\"{}\"", "x".repeat(1_000));
    silent.send_all((101..=150).map(|sequence| event(sequence, &payload))).await;
    let mut other = bench.open("b").await;
    other.send_all((1..=20).map(|sequence| event(sequence, &payload))).await;
    assert_eq!(other.acked(20).await.0, 20);
    tokio::time::timeout(LONG, silent.closed()).await.expect("it is read until the end");
    assert_eq!(silent.failure().await.0.reason, Reason::StreamIdle);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_not_done() {
    let options = Options {
        stream_idle_timeout: Duration::from_millis(200),
        max_streams: 1,
        ..Options::default()
    };
    let bench = Bench::with(options).await;
    let mut client = bench.open("a").await;
    client.send_all((1..=100).map(|sequence| event(sequence, "{"))).await;
    client.half_close();
    let gone = async {
        while bench.connect().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("its slot is free");
    assert_eq!(client.failure().await.0.reason, Reason::StreamIdle, "it did not take all answers");
}

#[tokio::test]
async fn streams_are_counted_by_key_and_altogether() {
    let bench = Bench::with(Options { max_streams: 2, ..Options::default() }).await;
    let mut client = bench.open("s").await;
    let error = bench.connect().map(|_| ()).unwrap_err();
    assert_eq!((error.reason, error.retry_after.is_some()), (Reason::ShareExhausted, true));
    let other_caller = |number| Principal::system(OrganizationId::new(Timestamp(0), number));
    let other = bench.connect_by(other_caller(1)).unwrap();
    let error = bench.connect_by(other_caller(2)).map(|_| ()).unwrap_err();
    assert_eq!((error.reason, error.retry_after.is_some()), (Reason::Overloaded, true));
    drop(other);
    client.half_close();
    assert!(client.message().await.is_none());
    bench.open("t").await;
}

#[tokio::test]
async fn silence_ends_a_stream() {
    let short = Duration::from_millis(100);
    let bench = Bench::with(Options {
        stream_open_timeout: short,
        stream_idle_timeout: short,
        ..Options::default()
    })
    .await;
    assert_eq!(bench.connect().unwrap().failure().await.0.reason, Reason::StreamIdle);
    let mut client = bench.open("s").await;
    close_gate(&bench);
    client.events(1..=1).await;
    // A client whose events are on their way is not silent.
    assert!(tokio::time::timeout(short * 5, client.message()).await.is_err());
    bench.intake.gate.add_permits(1_000);
    let (error, acked) = client.failure().await;
    assert_eq!((error.reason, acked), (Reason::StreamIdle, 1));
}

#[tokio::test]
async fn at_shutdown_what_was_read_is_acknowledged_and_the_client_is_sent_elsewhere() {
    let bench = Bench::start().await;
    close_gate(&bench);
    let mut client = bench.open("s").await;
    client.events(1..=3).await;
    // The next event is taken from the channel after the earlier ones.
    client.events(4..=4).await;
    bench.shutdown.cancel();
    bench.intake.gate.add_permits(1_000);
    let (error, acked) = client.failure().await;
    assert_eq!((error.reason, error.retry_after.is_some()), (Reason::ShuttingDown, true));
    assert!((3..=4).contains(&acked), "{acked}");
    assert_eq!(bench.connect().map(|_| ()).unwrap_err().reason, Reason::ShuttingDown);
}

#[tokio::test]
async fn a_commit_that_hangs_does_not_hold_the_shutdown() {
    let drain = Duration::from_millis(200);
    let bench = Bench::with(Options { stream_drain: drain, ..Options::default() }).await;
    close_gate(&bench);
    let mut client = bench.open("s").await;
    client.events(1..=3).await;
    bench.shutdown.cancel();
    let ended = tokio::time::timeout(LONG / 2, client.failure()).await.expect("promptly");
    assert_eq!((ended.0.reason, ended.1), (Reason::ShuttingDown, 0));
}

/// Waits until a condition holds, and yields in the meantime.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "timed out: {what}");
}

#[tokio::test]
async fn large_requests_take_turns_and_small_ones_do_not_wait_for_them() {
    let bench = Bench::start().await;
    let large = format!("\"{}\"", "x".repeat(200 << 10));
    let begun = || bench.intake.begun.load(Ordering::SeqCst);
    close_gate(&bench);
    let mut calls = vec![bench.publish(&large)];
    until("the first has its turn", || bench.large() == (1, 0) && begun() == 1).await;
    calls.push(bench.publish(&large));
    until("the second waits for its turn", || bench.large() == (1, 1)).await;
    let mut stream = bench.open("s").await;
    stream.send(event(1, &large)).await;
    until("a batch of a stream waits, too", || bench.large() == (1, 2)).await;
    calls.push(bench.publish("1"));
    until("a small one goes on at once", || begun() == 2).await;
    // The caller of the first request leaves. Its work continues, with the turn.
    calls.remove(0).abort();
    tokio::task::yield_now().await;
    assert_eq!((bench.large(), begun()), ((1, 2), 2));
    bench.intake.gate.add_permits(4);
    stream.acked(1).await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    until("all turns are over", || bench.large() == (0, 0)).await;
    assert_eq!(bench.intake.calls.lock().unwrap().len(), 4);
}
