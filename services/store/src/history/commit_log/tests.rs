//! The commit log on both backends.

use std::{collections::BTreeSet, time::Duration};

use outrider_model::{DeliveryReason, EndpointId, ProjectId, Reason, Timestamp, Verdict};
use uuid::Uuid;

use super::{LogEntry, LogKind, LogPosition};
use crate::{
    ledger::{CancelScope, NewEvent},
    testing::{
        backends::on_both_backends,
        world::{EPOCH, FAILURE, SUCCESS, World, attempted, not_attempted},
    },
};

on_both_backends! {
    accepted_events_are_told_once
    what_moves_a_delivery_is_told_once
    cancelled_deliveries_are_told
    resuming_at_every_place_gives_exactly_the_rest
    projects_have_logs_of_their_own
    commits_at_once_are_told_once
    what_was_pruned_is_said_to_be_gone
    logs_with_news_are_named
}

const DAY: Duration = Duration::from_secs(86_400);

impl World {
    /// All entries of a log from a place on, read in steps of `limit`, and the end.
    async fn log(
        &self,
        kind: LogKind,
        from: LogPosition,
        limit: usize,
    ) -> (Vec<LogEntry>, LogPosition) {
        self.caught_up().await;
        let (mut entries, mut place) = (Vec::new(), from);
        loop {
            let page =
                self.store.read_log(self.holder(), kind, self.project, place, limit).await.unwrap();
            assert!(page.entries.len() <= limit && page.complete | !page.entries.is_empty());
            entries.extend(page.entries);
            place = page.next;
            if page.complete {
                return (entries, place);
            }
        }
    }

    /// Waits until everything committed so far may be read. Transactions of other tests on the same
    /// server hold readers back too.
    pub(crate) async fn caught_up(&self) {
        if self.store.backend() == crate::Backend::Sqlite {
            return;
        }
        let now = self.number("SELECT pg_current_xact_id()::text::bigint").await;
        let caught_up =
            async { while self.store.log_end(self.holder()).await.unwrap().position <= now {} };
        tokio::time::timeout(Duration::from_secs(60), caught_up)
            .await
            .expect("every transaction ends");
    }

    async fn accept(&self, batch: &[NewEvent]) {
        self.ledger.accept(batch, self.keys_since()).await.unwrap();
    }

    /// Accepts events in batches of these sizes. Returns their ids.
    async fn accept_batches(&self, sizes: &[usize]) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for size in sizes {
            let batch: Vec<NewEvent> = (0..*size).map(|_| self.event_at(self.now)).collect();
            self.accept(&batch).await;
            ids.extend(batch.iter().map(|new| new.event.id.0));
        }
        ids
    }
}

fn ids(entries: &[LogEntry]) -> Vec<Uuid> {
    entries.iter().map(|entry| entry.id).collect()
}

async fn accepted_events_are_told_once(world: World) {
    let begin = world.store.log_end(world.holder()).await.unwrap();
    let batch =
        [world.event_at(world.now), world.keyed(world.now, "k", 1), world.keyed(world.now, "k", 1)];
    world.accept(&batch).await;
    // The whole batch again, as after an unknown outcome, and one more event with the key.
    world.accept(&batch).await;
    world.accept(&[world.keyed(world.now, "k", 1), world.keyed(world.now, "k", 2)]).await;
    let (entries, end) = world.log(LogKind::Events, begin, 100).await;
    assert_eq!(ids(&entries), [batch[0].event.id.0, batch[1].event.id.0]);
    assert!(entries.iter().all(|entry| entry.attempt.is_none()));
    assert_eq!(world.log(LogKind::Events, end, 100).await.0, []);
    assert_eq!(world.log(LogKind::Deliveries, begin, 100).await.0, []);
}

async fn what_moves_a_delivery_is_told_once(world: World) {
    let (first, second) = (
        world.delivery(world.endpoint, Some(EPOCH)).await,
        world.delivery(world.endpoint, Some(EPOCH)).await,
    );
    let begin = world.store.log_end(world.holder()).await.unwrap();
    let retry = attempted(&first, 1, Verdict::Retry(world.now), 503);
    let mut expected = vec![(first.id.0, retry.record.as_ref().map(|record| record.id))];
    for _ in 0..2 {
        world.ledger.settle(std::slice::from_ref(&retry)).await.unwrap();
    }
    // A hold moves the delivery without an attempt. A hold of another generation moves nothing.
    let hold = not_attempted(&second, Verdict::Hold);
    let mut stale = hold.clone();
    stale.generation += 1;
    world.ledger.settle(&[stale]).await.unwrap();
    world.ledger.settle(&[hold]).await.unwrap();
    expected.push((second.id.0, None));
    // Two exchanges of one attempt, success first whatever the order. Then again its late failure,
    // which is already recorded.
    let mut other = first.clone();
    other.generation += 1;
    let success = attempted(&other, 2, SUCCESS, 200);
    let failure = attempted(&other, 2, FAILURE, 500);
    expected.extend(
        [&success, &failure]
            .map(|report| (first.id.0, report.record.as_ref().map(|record| record.id))),
    );
    world.ledger.settle(&[failure.clone(), success.clone()]).await.unwrap();
    world.ledger.settle(&[failure, success]).await.unwrap();
    // A late failure of an attempt of another generation is recorded, but has no effect.
    let mut third = first.clone();
    third.generation += 2;
    let late = attempted(&third, 2, FAILURE, 500);
    expected.push((first.id.0, late.record.as_ref().map(|record| record.id)));
    world.ledger.settle(&[late]).await.unwrap();
    let (entries, _) = world.log(LogKind::Deliveries, begin, 100).await;
    assert_eq!(entries.iter().map(|entry| (entry.id, entry.attempt)).collect::<Vec<_>>(), expected);
}

async fn cancelled_deliveries_are_told(world: World) {
    let gone = EndpointId::new(world.now, 9);
    let waiting = [world.delivery(gone, None).await, world.delivery(gone, None).await];
    let begin = world.store.log_end(world.holder()).await.unwrap();
    let scope = CancelScope::Endpoint(gone);
    assert_eq!(
        world.ledger.cancel(scope, DeliveryReason::EndpointDeleted, world.now, 10).await.unwrap(),
        2
    );
    let (entries, _) = world.log(LogKind::Deliveries, begin, 100).await;
    let told: BTreeSet<Uuid> = ids(&entries).into_iter().collect();
    assert_eq!((entries.len(), told), (2, waiting.map(|delivery| delivery.id.0).into()));
    assert!(entries.iter().all(|entry| entry.attempt.is_none()));
}

async fn resuming_at_every_place_gives_exactly_the_rest(world: World) {
    let begin = world.store.log_end(world.holder()).await.unwrap();
    // More rows than are read at once, and more entries in a row than the limit.
    let sizes: Vec<usize> = (0..40).map(|n| [1, 2, 7][n % 3]).chain([50]).collect();
    let written = world.accept_batches(&sizes).await;
    let (entries, end) = world.log(LogKind::Events, begin, 20).await;
    assert_eq!(ids(&entries), written);
    for (index, entry) in entries.iter().enumerate() {
        let limit = [1, 3, 1_000][index % 3];
        let (rest, last) = world.log(LogKind::Events, entry.next, limit).await;
        assert_eq!(ids(&rest), written[index + 1..], "from {:?}", entry.next);
        assert!(last.position >= end.position);
    }
}

async fn projects_have_logs_of_their_own(mut world: World) {
    let begin = world.store.log_end(world.holder()).await.unwrap();
    let other = ProjectId::new(world.now, 2);
    let mut batch = vec![world.event_at(world.now), world.event_at(world.now)];
    batch[1].event.project = other;
    world.accept(&batch).await;
    let (entries, end) = world.log(LogKind::Events, begin, 10).await;
    assert_eq!(ids(&entries), [batch[0].event.id.0]);
    world.project = other;
    assert_eq!(ids(&world.log(LogKind::Events, begin, 10).await.0), [batch[1].event.id.0]);
    // The end of one log is after everything in the other.
    assert_eq!(world.log(LogKind::Events, end, 10).await.0, []);
}

async fn commits_at_once_are_told_once(world: World) {
    let begin = world.store.log_end(world.holder()).await.unwrap();
    let (tasks, rounds) = (8, 20);
    let write = futures::future::join_all((0..tasks).map(|_| async {
        let mut ids = Vec::new();
        for _ in 0..rounds {
            ids.extend(world.accept_batches(&[3]).await);
        }
        ids
    }));
    let total = tasks * rounds * 3;
    let read = async {
        let (mut seen, mut place) = (Vec::new(), begin);
        while seen.len() < total {
            let (entries, end) = world.log(LogKind::Events, place, 50).await;
            seen.extend(ids(&entries));
            place = end;
        }
        seen
    };
    let bounded =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(write, read) });
    let (written, seen) = bounded.await.expect("the reader misses nothing");
    let written: BTreeSet<Uuid> = written.concat().into_iter().collect();
    assert_eq!(seen.len(), total, "no entry is read twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), written);
}

async fn what_was_pruned_is_said_to_be_gone(world: World) {
    let begin = world.store.log_end(world.holder()).await.unwrap();
    world.accept_batches(&[1; 5]).await;
    assert!(!world.ledger.prune_log(world.now.minus(DAY)).await.unwrap(), "nothing is that old");
    assert_eq!(world.log(LogKind::Events, begin, 10).await.0.len(), 5);
    let later = world.now.plus(3 * DAY);
    while world.ledger.prune_log(later).await.unwrap() {}
    assert_eq!(world.rows("commit_log").await, 0);
    world.ledger.prepare(world.now).await.unwrap();
    let refused = async |place: LogPosition| {
        world
            .store
            .read_log(world.holder(), LogKind::Events, world.project, place, 10)
            .await
            .unwrap_err()
            .reason
    };
    assert_eq!(refused(begin).await, Reason::CursorExpired);
    let end = world.store.log_end(world.holder()).await.unwrap();
    let future = LogPosition { position: end.position + 1_000_000, at: later, index: 0 };
    assert_eq!(refused(future).await, Reason::CursorExpired);
    // Positions continue, although no row is left.
    assert!(end.position > begin.position);
    let kept = LogPosition { at: later, ..end };
    let written = world.accept_batches(&[2]).await;
    world.caught_up().await;
    let page = world.store.read_log(world.holder(), LogKind::Events, world.project, kept, 10).await;
    if world.store.backend() == crate::Backend::Sqlite {
        // On PostgreSQL, a reader with a place of a later day does not look for rows of today.
        assert_eq!(ids(&page.unwrap().entries), written);
    }
}

async fn logs_with_news_are_named(world: World) {
    let mine = (LogKind::Events, world.project);
    let other = (LogKind::Events, ProjectId::new(Timestamp(0), 7));
    let logs = || vec![mine, other, (LogKind::Deliveries, world.project)];
    world.caught_up().await;
    let (all, place) = world.store.logged_since(None, logs()).await.unwrap();
    assert_eq!(all.len(), 3, "without a position, all logs are named");
    assert_eq!(world.store.logged_since(Some(place), logs()).await.unwrap().0, []);
    world.accept_batches(&[1, 1]).await;
    world.caught_up().await;
    let (found, next) = world.store.logged_since(Some(place), logs()).await.unwrap();
    assert_eq!(found, [mine]);
    assert_eq!(world.store.logged_since(Some(next), logs()).await.unwrap().0, []);
    assert_eq!(world.store.logged_since(Some(place), vec![other]).await.unwrap().0, []);
    assert_eq!(
        world.store.log_identity().await.unwrap(),
        world.database.connect().await.log_identity().await.unwrap()
    );
}
