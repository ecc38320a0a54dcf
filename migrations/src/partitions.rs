//! Daily partitions on PostgreSQL: of the ledger's history by the time in its ids, of idempotency
//! keys and the commit log by their day.

use std::time::{SystemTime, UNIX_EPOCH};

/// A table that is partitioned by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The name of the table.
    pub name: &'static str,
    key: Key,
}

/// The key by which a table is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// The time in the UUIDv7 of its id.
    Id,
    /// Its column `day`.
    Day,
}

/// The tables of the ledger.
pub const LEDGER: [Table; 4] = [
    Table { name: "events", key: Key::Id },
    Table { name: "deliveries", key: Key::Id },
    Table { name: "attempts", key: Key::Id },
    Table { name: "idempotency_keys", key: Key::Day },
];
/// The tables of history, in the order in which settling locks them.
pub const HISTORY: [Table; 3] = [LEDGER[0], LEDGER[2], LEDGER[1]];
/// The idempotency keys.
pub const IDEMPOTENCY_KEYS: Table = LEDGER[3];
/// The commit log.
pub const COMMIT_LOG: Table = Table { name: "commit_log", key: Key::Day };

/// Number of days before today that have partitions from the start, because clocks of other hosts
/// may be behind.
pub const DAYS_BEHIND: i64 = 1;
/// Number of days after today that have partitions.
pub const DAYS_AHEAD: i64 = 7;
const DAY_MILLIS: i64 = 86_400_000;

/// The partition of a table for a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The name, such as `events_p20261122`.
    pub name: String,
    /// Creates an empty partition and attaches it. Run them in one transaction, if it does not
    /// exist. Attaching takes a weaker lock than `CREATE TABLE … PARTITION OF`, so reads and writes
    /// of the table continue.
    pub statements: [String; 2],
}

/// All tables that are partitioned by day.
pub fn tables() -> impl Iterator<Item = Table> {
    LEDGER.into_iter().chain([COMMIT_LOG])
}

/// The partitions of a day. Days are counted from 1970-01-01 in UTC.
#[must_use]
pub fn of_day(tables: &[Table], day: i64) -> Vec<Partition> {
    let suffix = date(day);
    let bounds = |key: Key, day: i64| match key {
        Key::Id => format!("'{}'", id_bound(day)),
        Key::Day => day.to_string(),
    };
    tables
        .iter()
        .map(|table| {
            partition(table.name, &suffix, &bounds(table.key, day), &bounds(table.key, day + 1))
        })
        .collect()
}

/// The partitions of these tables that must exist on a day.
#[must_use]
pub fn wanted_of(tables: &[Table], today: i64) -> Vec<Partition> {
    (today - DAYS_BEHIND..=today + DAYS_AHEAD).flat_map(|day| of_day(tables, day)).collect()
}

/// Today's day by the clock of this host.
#[must_use]
pub fn today() -> i64 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (seconds / 86_400).cast_signed()
}

fn partition(table: &str, suffix: &str, from: &str, to: &str) -> Partition {
    let name = format!("{table}_p{suffix}");
    let create = format!("CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE)");
    let attach =
        format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})");
    Partition { name, statements: [create, attach] }
}

/// The smallest UUIDv7 of a day, with its milliseconds in the first 48 bits.
fn id_bound(day: i64) -> String {
    let millis = day.max(0) * DAY_MILLIS;
    format!("{:08x}-{:04x}-0000-0000-000000000000", millis >> 16, millis & 0xffff)
}

/// A day as `20261122`. Years are counted from March, so that the leap day is the last day. 400
/// years have 146,097 days.
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_years() {
        for (day, text) in [
            (0, "19700101"),
            (59, "19700301"),
            (11_016, "20000229"),
            (11_017, "20000301"),
            (20_779, "20261122"),
            (20_819, "20270101"),
        ] {
            assert_eq!(date(day), text);
        }
    }

    #[test]
    fn bounds_are_the_midnights_in_the_ids() {
        assert_eq!(id_bound(0), "00000000-0000-0000-0000-000000000000");
        assert_eq!(id_bound(19_676), "018bd047-1000-0000-0000-000000000000");
        let tables: Vec<Table> = tables().collect();
        let partitions = of_day(&tables, 20_779);
        let names: Vec<&str> = partitions.iter().map(|partition| partition.name.as_str()).collect();
        let days = ["events", "deliveries", "attempts", "idempotency_keys", "commit_log"]
            .map(|table| format!("{table}_p20261122"));
        assert_eq!(names, days);
        assert!(
            partitions[0].statements[1].ends_with("TO ('01a205b3-d000-0000-0000-000000000000')"),
            "{partitions:?}"
        );
        assert!(partitions[4].statements[1].ends_with("FROM (20779) TO (20780)"), "{partitions:?}");
    }
}
