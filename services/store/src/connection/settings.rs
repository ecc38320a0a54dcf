//! The settings that statements rely on.

/// The values that every session gets. Under another isolation level, a read after a lock would see
/// the state before the lock, and a pending delivery would lose its event. Another `search_path`
/// finds other tables. The other settings keep timeouts and formats as expected.
pub(crate) const RELIED_ON: [(&str, &str); 9] = [
    ("default_transaction_isolation", "read committed"),
    ("lock_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("idle_in_transaction_session_timeout", "30000"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
];
