//! Partitions of a day on PostgreSQL: of the ledger's history by the time in its ids, of idempotency keys by their day.

/// The tables that are partitioned by the time in their UUIDv7.
const BY_ID: [&str; 3] = ["events", "deliveries", "attempts"];
/// The table that is partitioned by its column `day`.
const BY_DAY: &str = "idempotency_keys";
/// How many days before today have partitions from the start: clocks of other hosts may be behind.
pub const DAYS_BEHIND: i64 = 1;
/// How many days after today have partitions.
pub const DAYS_AHEAD: i64 = 7;
const DAY_MILLIS: i64 = 86_400_000;

/// One day's part of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// As in `events_p20261122`.
    pub name: String,
    /// Creates it, empty, and attaches it. To be run in one transaction, when it does not exist. Attaching takes a weaker lock
    /// than `CREATE TABLE … PARTITION OF`: reads and writes of the table go on.
    pub statements: [String; 2],
}

/// The partitions of a day, which is counted from 1970-01-01 in UTC.
#[must_use]
pub fn of_day(day: i64) -> Vec<Partition> {
    let suffix = date(day);
    let (from, to) = (id_bound(day), id_bound(day + 1));
    let mut partitions: Vec<Partition> =
        BY_ID.iter().map(|table| partition(table, &suffix, &format!("'{from}'"), &format!("'{to}'"))).collect();
    partitions.push(partition(BY_DAY, &suffix, &day.to_string(), &(day + 1).to_string()));
    partitions
}

/// The partitions that must exist on a day.
#[must_use]
pub fn wanted_on(today: i64) -> Vec<Partition> {
    (today - DAYS_BEHIND..=today + DAYS_AHEAD).flat_map(of_day).collect()
}

fn partition(table: &str, suffix: &str, from: &str, to: &str) -> Partition {
    let name = format!("{table}_p{suffix}");
    let create = format!("CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE)");
    let attach = format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})");
    Partition { name, statements: [create, attach] }
}

/// The smallest UUIDv7 of a day: its milliseconds in the first 48 bits.
fn id_bound(day: i64) -> String {
    let millis = day.max(0) * DAY_MILLIS;
    format!("{:08x}-{:04x}-0000-0000-000000000000", millis >> 16, millis & 0xffff)
}

/// A day as `20261122`: years are counted from March, so that the leap day is the last one; 400 years have 146,097 days.
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
        let names: Vec<String> = of_day(20_779).into_iter().map(|partition| partition.name).collect();
        assert_eq!(names, ["events_p20261122", "deliveries_p20261122", "attempts_p20261122", "idempotency_keys_p20261122"]);
    }
}
