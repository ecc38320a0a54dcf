//! Tails and watched deliveries, which continue until the user interrupts them or a delivery ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use crate::{
    Dev,
    support::{Running, failed, outrider, succeeded},
};

#[test]
fn a_tail_prints_events_goes_on_from_a_cursor_and_ends_when_told() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &[]);
    let tail =
        Running::start(dev.command(home, &["tail", "--json", "--payload", "--event-type", "a.*"]));
    // The tail is live when one of these is printed.
    let live = Arc::new(AtomicBool::new(false));
    let mut publish = dev.command(home, &["publish", "a.first", "{\"n\":  1}"]);
    let seen = Arc::clone(&live);
    let publisher = std::thread::spawn(move || {
        while !seen.load(Ordering::SeqCst) {
            succeeded(publish.output().unwrap());
        }
    });
    let first: Value = serde_json::from_str(&tail.line("a.first")).unwrap();
    live.store(true, Ordering::SeqCst);
    publisher.join().unwrap();
    assert_eq!(first["event"]["data"]["n"], 1);
    for event_type in ["b.left_out", "a.second", "a.third"] {
        dev.text(home, &["publish", event_type, "2"]);
    }
    tail.line("a.third");
    tail.stop();
    let cursor = first["cursor"].as_str().unwrap();
    let rest = Running::start(
        dev.command(home, &["tail", "--type", "a.second,a.third", "--cursor", cursor]),
    );
    assert!(rest.line("a.").contains("a.second"));
    let line = rest.line("a.");
    assert!(
        line.contains("a.third") && line.contains("evt_") && line.contains("no_subscription"),
        "{line}"
    );
    rest.interrupt();
    let (code, errors) = failed(dev.command(home, &["tail", "--cursor", "x"]).output().unwrap());
    assert!(code == 1 && errors.contains("cursor"), "{errors}");
    dev.process.stop();
}

#[test]
fn a_delivery_is_watched_until_it_ends() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let dev = Dev::start(home, &["--set", "dispatch.retry_schedule=300ms,300ms"]);
    let listener = Running::start(outrider(home, &["listen", "0", "--status", "500"]));
    let url = listener
        .line("listening")
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap()
        .to_owned();
    let endpoint =
        dev.json(home, &["endpoints", "create", "--url", &url])["endpoint"]["endpoint_id"]
            .as_str()
            .unwrap()
            .to_owned();
    dev.text(home, &["subscriptions", "create", &endpoint, "*"]);
    let all = Running::start(dev.command(
        home,
        &["deliveries", "watch", "--endpoint", &endpoint, "--status", "failed", "--json"],
    ));
    let delivery = (0..).find_map(|_| {
        let event =
            dev.json(home, &["publish", "a.b", "1"])["event_id"].as_str().unwrap().to_owned();
        let page = dev.json(home, &["deliveries", "list", "--event", &event]);
        page["deliveries"][0]["delivery_id"].as_str().map(str::to_owned)
    });
    let delivery = delivery.unwrap();
    let text = dev.text(home, &["deliveries", "watch", &delivery]);
    let last = text.lines().last().unwrap();
    assert!(
        last.contains(&delivery) && last.contains("failed") && last.contains("exhausted"),
        "{text}"
    );
    dev.text(home, &["publish", "a.c", "1"]);
    let update: Value = serde_json::from_str(&all.line("DELIVERY_STATUS_FAILED")).unwrap();
    assert_eq!(update["delivery"]["delivery"]["endpoint_id"], endpoint.as_str());
    all.stop();
    listener.stop();
    dev.process.stop();
}
