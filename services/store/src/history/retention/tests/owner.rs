//! Servers that do not own the tables write down what may be dropped. The owner's job drops that
//! and nothing else.

use std::time::Duration;

use crate::{
    Store,
    testing::{granted::Granted, options},
};

const DAY: Duration = Duration::from_secs(86_400);

async fn partitions(store: &Store, table: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass";
    sqlx::query_scalar(count).bind(table).fetch_one(store.postgres_pool()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn drops_what_the_servers_wrote_down_and_nothing_else() {
    let Some(granted) = Granted::new().await else { return };
    let (server, owner) =
        (granted.connect().await, Store::connect(&options(granted.database.url())).await.unwrap());
    let now = owner.clock().now();
    // The partitions of the days from 41 to 33 days ago, and around today.
    owner.ledger().prepare(now.minus(40 * DAY)).await.unwrap();
    assert_eq!(
        (partitions(&owner, "events").await, partitions(&owner, "commit_log").await),
        (18, 18)
    );
    assert!(owner.may_drop().await.unwrap() && !server.may_drop().await.unwrap());
    assert_eq!(
        owner.drop_written_down().await.unwrap(),
        crate::Dropped::default(),
        "no server wrote anything down"
    );

    // Three of these days may be dropped, and all old partitions of keys and of the log.
    server.write_down(Some(now.minus(38 * DAY)), now.minus(DAY)).await.unwrap();
    assert!(!server.ledger().prune_log(now.minus(7 * DAY)).await.unwrap(), "the owner does that");
    assert_eq!(partitions(&owner, "commit_log").await, 18);
    // A process with a longer retention does not revoke that.
    server.write_down(None, now.minus(30 * DAY)).await.unwrap();
    let dropped = owner.drop_written_down().await.unwrap();
    assert!(!dropped.is_blocked);
    let left = [
        partitions(&owner, "events").await,
        partitions(&owner, "attempts").await,
        partitions(&owner, "deliveries").await,
    ];
    assert_eq!(left, [15; 3], "{dropped:?}");
    assert_eq!(
        (partitions(&owner, "idempotency_keys").await, partitions(&owner, "commit_log").await),
        (9, 9)
    );
    assert_eq!(owner.drop_written_down().await.unwrap(), crate::Dropped::default());
    assert_eq!(
        (owner.days_ahead().await.unwrap(), server.days_ahead().await.unwrap()),
        (Some(7), Some(7))
    );
}
