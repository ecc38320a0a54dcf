//! Who needs which right on which table. docs/operations.md grants exactly these; tests hold the two together.

use super::Work;

/// A part of the work.
pub(crate) struct Probe {
    /// As the metric names it.
    pub name: &'static str,
    /// Whose it is; none for everybody's.
    of: Option<Work>,
    /// Tables with what is done to them: S(elect), I(nsert), U(pdate, and locks of rows), D(elete).
    rights: &'static [(&'static str, &'static str)],
    /// Further statements.
    more: &'static [&'static str],
}

/// All of them.
pub(crate) const PROBES: [Probe; 10] = [
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
    Probe { name: "jobs", of: Some(Work::Jobs), rights: &[("pending_deliveries", "S"), ("events", "S")], more: &[] },
    Probe {
        name: "publish",
        of: Some(Work::Deliveries),
        rights: &[("events", "SI"), ("pending_deliveries", "SI"), ("idempotency_keys", "SIU"), ("commit_log", "SIU")],
        more: &[],
    },
    Probe {
        name: "settle",
        of: Some(Work::Deliveries),
        rights: &[("pending_deliveries", "UD"), ("deliveries", "SI"), ("attempts", "SI")],
        more: &[],
    },
    Probe { name: "feed", of: Some(Work::Deliveries), rights: &[("pending_deliveries", "SU")], more: &[] },
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
        more: &["SELECT 1 FROM pg_locks WHERE FALSE"],
    },
];

impl Probe {
    pub fn is_of(&self, works: &[Work]) -> bool {
        self.of.is_none_or(|work| works.contains(&work))
    }

    /// Each as people read it, and as it is asked: over no row. Not by EXPLAIN, which a database that takes no writes would answer.
    pub fn statements(&self) -> Vec<(String, String)> {
        let of_table =
            |(table, rights): &(&str, &str)| rights.chars().map(|right| over_nothing(table, right)).collect::<Vec<_>>();
        let more = self.more.iter().map(|statement| ((*statement).to_owned(), (*statement).to_owned()));
        self.rights.iter().flat_map(of_table).chain(more).collect()
    }
}

fn over_nothing(table: &str, right: char) -> (String, String) {
    match right {
        'I' => (format!("INSERT INTO {table}"), format!("INSERT INTO {table} SELECT * FROM {table} WHERE FALSE")),
        // It asks for the right to update without naming a column.
        'U' => (format!("UPDATE {table}"), format!("SELECT 1 FROM {table} WHERE FALSE FOR UPDATE")),
        'D' => (format!("DELETE FROM {table}"), format!("DELETE FROM {table} WHERE FALSE")),
        _ => (format!("SELECT FROM {table}"), format!("SELECT * FROM {table} WHERE FALSE")),
    }
}

#[cfg(test)]
impl Probe {
    /// `(right, table)` as they are granted.
    pub fn rights(&self) -> Vec<(String, String)> {
        let name = |right| match right {
            'I' => "INSERT",
            'U' => "UPDATE",
            'D' => "DELETE",
            _ => "SELECT",
        };
        let of_table = |(table, rights): &(&str, &str)| {
            rights.chars().map(|right| (name(right).to_owned(), (*table).to_owned())).collect::<Vec<_>>()
        };
        self.rights.iter().flat_map(of_table).collect()
    }
}
