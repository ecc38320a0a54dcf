//! What only PostgreSQL can do: transactions under way at once, compression.

use super::accept;
use crate::{LogKind, ledger::tests::World};

/// The first to begin is the last to commit. A reader that went by position alone would pass it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_in_reverse_order_are_read_in_order_and_once() {
    let Some(world) = World::postgres().await else { return };
    let pool = world.store.postgres_pool();
    let events = [world.event_at(world.now), world.event_at(world.now)];
    let mut place = world.store.log_end().await.unwrap();
    let mut seen = Vec::new();
    let mut read = async || {
        let page = world.store.read_log(LogKind::Events, world.project, place, 10).await.unwrap();
        place = page.next;
        seen.extend(page.entries.iter().map(|entry| entry.id));
        seen.len()
    };
    let (mut first, mut second) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    accept::write(&mut first, &events[..1], &[], world.keys_since()).await.unwrap();
    accept::write(&mut second, &events[1..], &[], world.keys_since()).await.unwrap();
    assert_eq!(read().await, 0);
    second.commit().await.unwrap();
    assert_eq!(read().await, 0, "the first may still come before it");
    first.commit().await.unwrap();
    world.caught_up().await;
    assert_eq!(read().await, 2);
    assert_eq!(read().await, 2);
    assert_eq!(seen, events.map(|new| new.event.id.0));
    assert_eq!(world.rows("commit_log").await, 2);
}

/// Debian's servers have lz4; one without it compresses by its default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_are_compressed_by_the_faster_method() {
    let Some(world) = World::postgres().await else { return };
    let has = "SELECT count(*) FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)";
    let has = world.number(has).await;
    let mut event = world.event_at(world.now);
    event.payload = "\"always the same\"".repeat(1_000).into();
    world.ledger.accept(&[event], world.keys_since()).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM events WHERE pg_column_compression(payload) = 'lz4'").await, has);
}
