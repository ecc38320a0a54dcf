//! The rights that each kind of work needs, by table. docs/operations.md grants exactly these;
//! tests compare the two.

use std::collections::HashMap;

use sqlx::{PgConnection, Row as _};

use super::work::Work;

/// For each table, an assignment to each of its columns. For a statement that names no column, the
/// right to any one of them would be enough.
pub(super) struct Columns(HashMap<String, String>);

impl Columns {
    pub async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        // The tables are in the first schema of the search path.
        const READ: &str = "SELECT c.relname::text AS table,
                string_agg(quote_ident(a.attname) || ' = DEFAULT', ', ') AS setting
            FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
                JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND a.attnum > 0 AND NOT a.attisdropped
            GROUP BY c.relname";
        let rows = sqlx::raw_sql(READ).fetch_all(connection).await?;
        let setting =
            rows.into_iter().map(|row| Ok((row.try_get("table")?, row.try_get("setting")?)));
        setting.collect::<Result<_, sqlx::Error>>().map(Self)
    }

    fn setting(&self, table: &str) -> Option<&str> {
        self.0.get(table).map(String::as_str)
    }
}

/// The statements of a part of the work.
pub(super) struct Probe {
    /// The name in the metric.
    pub name: &'static str,
    /// The kind of work that needs it. None for every kind.
    of: Option<Work>,
    /// Tables and what is done to them: S(elect), I(nsert), U(pdate, and row locks), D(elete).
    rights: &'static [(&'static str, &'static str)],
    /// Further statements.
    more: &'static [&'static str],
}

/// All probes.
pub(super) const PROBES: [Probe; 10] = [
    Probe {
        name: "configuration_read",
        of: None,
        rights: &[
            ("seaql_migrations", "S"),
            ("organizations", "S"),
            ("projects", "S"),
            ("api_keys", "S"),
            ("endpoints", "S"),
            ("endpoint_secrets", "S"),
            ("subscriptions", "S"),
            ("event_types", "S"),
            ("changes", "S"),
        ],
        more: &[],
    },
    Probe {
        name: "configuration_write",
        of: Some(Work::Configuration),
        rights: &[
            ("organizations", "U"),
            ("projects", "IU"),
            ("api_keys", "IU"),
            ("endpoints", "IU"),
            ("endpoint_secrets", "I"),
            ("subscriptions", "IUD"),
            ("event_types", "IUD"),
            ("changes", "I"),
            ("requests", "SIUD"),
        ],
        more: &[],
    },
    Probe {
        name: "jobs",
        of: Some(Work::Jobs),
        rights: &[("pending_deliveries", "S"), ("events", "S")],
        more: &[],
    },
    Probe {
        name: "publish",
        of: Some(Work::Deliveries),
        rights: &[
            ("events", "SI"),
            ("pending_deliveries", "SI"),
            ("idempotency_keys", "SIU"),
            ("commit_log", "SIU"),
        ],
        more: &[],
    },
    Probe {
        name: "settle",
        of: Some(Work::Deliveries),
        rights: &[("pending_deliveries", "UD"), ("deliveries", "SI"), ("attempts", "SI")],
        more: &[],
    },
    Probe {
        name: "feed",
        of: Some(Work::Deliveries),
        rights: &[("pending_deliveries", "SU")],
        more: &[],
    },
    Probe {
        name: "retry",
        of: Some(Work::Deliveries),
        rights: &[("replays", "SI"), ("events", "U"), ("pending_deliveries", "I")],
        more: &[],
    },
    Probe {
        name: "tails",
        of: Some(Work::Deliveries),
        rights: &[("commit_log", "S"), ("commit_log_state", "S")],
        more: &["SELECT system_identifier FROM pg_control_system()"],
    },
    Probe {
        name: "sweep",
        of: Some(Work::Deliveries),
        rights: &[
            ("commit_log_state", "U"),
            ("changes", "D"),
            ("events", "U"),
            ("attempts", "U"),
            ("payload_erasures", "SIU"),
            ("payload_holds", "SID"),
        ],
        more: &[],
    },
    Probe {
        name: "audit",
        of: Some(Work::Deliveries),
        rights: &[("replays", "S")],
        more: &[
            "SELECT 1 FROM pg_locks WHERE FALSE",
            // Needs the right to the whole table, even if every column may be read. Two statements
            // form a transaction, which LOCK needs.
            "SELECT 1; LOCK TABLE ONLY events, ONLY attempts, ONLY deliveries IN ACCESS SHARE MODE",
        ],
    },
];

impl Probe {
    pub fn is_of(&self, works: &[Work]) -> bool {
        self.of.is_none_or(|work| works.contains(&work))
    }

    /// Each statement as people read it, and as it is sent, over no row. Not by EXPLAIN, which also
    /// works in a database that accepts no writes.
    pub fn statements(&self, columns: &Columns) -> Vec<(String, String)> {
        let of_table = |(table, rights): &(&str, &str)| {
            rights
                .chars()
                .map(|right| over_nothing(table, right, columns.setting(table)))
                .collect::<Vec<_>>()
        };
        let more =
            self.more.iter().map(|statement| ((*statement).to_owned(), (*statement).to_owned()));
        self.rights.iter().flat_map(of_table).chain(more).collect()
    }
}

/// A statement over all columns, because a right to only some of them is not enough. `setting` is
/// missing if the table is.
fn over_nothing(table: &str, right: char, setting: Option<&str>) -> (String, String) {
    match right {
        'I' => (
            format!("INSERT INTO {table}"),
            format!("INSERT INTO {table} SELECT * FROM {table} WHERE FALSE"),
        ),
        'U' => {
            let sql = match setting {
                Some(setting) => format!("UPDATE {table} SET {setting} WHERE FALSE"),
                None => format!("SELECT 1 FROM {table} WHERE FALSE FOR UPDATE"),
            };
            (format!("UPDATE {table}"), sql)
        }
        'D' => (format!("DELETE FROM {table}"), format!("DELETE FROM {table} WHERE FALSE")),
        _ => (format!("SELECT FROM {table}"), format!("SELECT * FROM {table} WHERE FALSE")),
    }
}

#[cfg(test)]
impl Probe {
    /// `(right, table)`, as in a GRANT.
    pub fn rights(&self) -> Vec<(String, String)> {
        let name = |right| match right {
            'I' => "INSERT",
            'U' => "UPDATE",
            'D' => "DELETE",
            _ => "SELECT",
        };
        let of_table = |(table, rights): &(&str, &str)| {
            rights
                .chars()
                .map(|right| (name(right).to_owned(), (*table).to_owned()))
                .collect::<Vec<_>>()
        };
        self.rights.iter().flat_map(of_table).collect()
    }
}
